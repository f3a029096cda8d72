// y = x Wᵀ + bias and rows of W, of every kind of weight, held to sums in double.
#pragma once

#include <algorithm>
#include <cstring>
#include <thread>

#include "weights.hpp"

// Float sums may err by 1e-5 of the sum of magnitudes. Items of the batch are of different sizes.
inline void check_linear(const Case& c, int batch, bool biased, Random& random) {
  const int rows = c.dense.rows, columns = c.dense.columns, offset = batch % 3;
  auto x = random.values(static_cast<size_t>(batch) * columns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(x[i], static_cast<int>(i / columns) % 7 - 2);
  const auto bias = random.values(rows);
  Array in(x, offset), add(bias, offset), out(static_cast<size_t>(batch) * rows, offset);
  if (!check(dopant_linear(c.handle.get(), biased ? add.data() : nullptr, in.data(), batch, out.data()) == 0,
             "%s: %s", c.name.c_str(), dopant_error()))
    return;
  for (int b = 0; b < batch; ++b) {
    std::vector<double> wanted(rows), size(rows), weight(rows);
    double largest = 0.0, most = 0.0;
    for (int j = 0; j < columns; ++j)
      largest = std::max(largest, std::fabs(double{x[static_cast<size_t>(b) * columns + j]}));
    for (int i = 0; i < rows; ++i) {
      wanted[i] = biased ? bias[i] : 0.0;
      size[i] = std::fabs(wanted[i]);
      for (int j = 0; j < columns; ++j) {
        const double w = c.dense.at(i, j), part = w * x[static_cast<size_t>(b) * columns + j];
        wanted[i] += part;
        size[i] += std::fabs(part);
        weight[i] += std::fabs(w);
      }
      most = std::max(most, size[i]);
    }
    for (int i = 0; i < rows; ++i) {
      const double got = out[static_cast<size_t>(b) * rows + i];
      const double allowed = 1e-5 * most + c.loss * largest * weight[i] + 1e-12;
      if (!check(std::fabs(got - wanted[i]) <= allowed, "%s, batch %d of %d, row %d: %.9g, not %.9g (± %.2g)",
                 c.name.c_str(), b, batch, i, got, wanted[i], allowed))
        return;
    }
  }
}

inline void check_rows(const Case& c, Random& random) {
  const int columns = c.dense.columns, count = std::min(c.dense.rows, 40) + 3;
  std::vector<int64_t> index;
  for (int k = 0; k < count; ++k) index.push_back(k < c.dense.rows ? k : random.below(c.dense.rows));
  Array out(static_cast<size_t>(count) * columns, 1);
  check(dopant_rows(c.handle.get(), index.data(), count, out.data()) == 0, "%s: %s", c.name.c_str(), dopant_error());
  for (int k = 0; k < count; ++k)
    for (int j = 0; j < columns; ++j) {
      const double got = out[static_cast<size_t>(k) * columns + j], wanted = c.dense.at(static_cast<int>(index[k]), j);
      if (!check(std::fabs(got - wanted) <= 1e-5 * (1.0 + std::fabs(wanted)), "%s, row %d, column %d: %.9g, not %.9g",
                 c.name.c_str(), static_cast<int>(index[k]), j, got, wanted))
        return;
    }
}

// One bad number in one row of the batch: it spreads to all outputs it has a part in, and to no other row of the batch.
inline void check_not_finite(const Case& c, int batch, float bad, Random& random) {
  const int rows = c.dense.rows, columns = c.dense.columns, item = random.below(batch), place = random.below(columns);
  auto x = random.values(static_cast<size_t>(batch) * columns);
  std::vector<float> before(static_cast<size_t>(batch) * rows), after = before;
  dopant_linear(c.handle.get(), nullptr, x.data(), batch, before.data());
  x[static_cast<size_t>(item) * columns + place] = bad;
  dopant_linear(c.handle.get(), nullptr, x.data(), batch, after.data());
  for (int i = 0; i < rows; ++i) {
    double weight = 0.0;
    for (int j = 0; j < columns; ++j) weight += std::fabs(c.dense.at(i, j));
    const double allowed = 1e-4 + (1e-5 + 2.0 * c.loss) * weight;
    for (int b = 0; b < batch; ++b) {
      const size_t at = static_cast<size_t>(b) * rows + i;
      if (b != item) {
        if (!check(std::fabs(after[at] - before[at]) <= allowed, "%s: %g in row %d of %d changes row %d: %g, not %g",
                   c.name.c_str(), bad, item, batch, b, after[at], before[at]))
          return;
      } else if (c.dense.at(i, place) != 0.0 &&
                 !check(!std::isfinite(after[at]), "%s: %g in column %d, batch %d, is lost in output %d: %g",
                        c.name.c_str(), bad, place, batch, i, after[at])) {
        return;
      }
    }
  }
}

// Of a sparse weight it spreads to no other output either: zeros that are not there are not multiplied, and infinity stays so.
inline void check_spreads_no_further(const Case& c, Random& random) {
  if (c.handle == nullptr) return;
  const int rows = c.dense.rows, columns = c.dense.columns;
  for (int batch : {1, 4, 8, 16, 32}) {
    const int item = random.below(batch), place = random.below(columns);
    auto x = random.values(static_cast<size_t>(batch) * columns);
    x[static_cast<size_t>(item) * columns + place] = INFINITY;
    std::vector<float> y(static_cast<size_t>(batch) * rows);
    dopant_linear(c.handle.get(), nullptr, x.data(), batch, y.data());
    for (int b = 0; b < batch; ++b)
      for (int i = 0; i < rows; ++i) {
        const float got = y[static_cast<size_t>(b) * rows + i];
        const double part = b == item ? c.dense.at(i, place) : 0.0;
        if (!check(part == 0.0 ? std::isfinite(got) : got == std::copysign(INFINITY, part),
                   "%s: infinity in column %d of %d in %d makes output %d of %d %g", c.name.c_str(), place, item, batch, i, b, got))
          return;
      }
  }
}

// Nor does it change a bit of other items, however many there are beside it.
inline void check_others_stay(const Case& c, Random& random) {
  if (c.handle == nullptr) return;
  const int rows = c.dense.rows, columns = c.dense.columns;
  for (int batch : {4, 8, 16}) {
    const int item = random.below(batch);
    auto x = random.values(static_cast<size_t>(batch) * columns);
    std::vector<float> before(static_cast<size_t>(batch) * rows), after(before.size());
    dopant_linear(c.handle.get(), nullptr, x.data(), batch, before.data());
    x[static_cast<size_t>(item) * columns + random.below(columns)] = NAN;
    dopant_linear(c.handle.get(), nullptr, x.data(), batch, after.data());
    for (int b = 0; b < batch; ++b)
      if (b != item && !check(std::equal(&before[static_cast<size_t>(b) * rows], &before[static_cast<size_t>(b) * rows] + rows,
                                         &after[static_cast<size_t>(b) * rows]),
                              "%s: NaN in %d of %d changes %d", c.name.c_str(), item, batch, b))
        return;
  }
}

// Callers at the same time, whose batches are large enough to be shared among threads of the library's own.
inline void check_threads(const Case& c, Random& random) {
  const int rows = c.dense.rows, columns = c.dense.columns, batch = 70;
  dopant_set_threads(3);
  const auto x = random.values(static_cast<size_t>(batch) * columns);
  std::vector<std::vector<float>> results(4, std::vector<float>(static_cast<size_t>(batch) * rows));
  std::vector<std::thread> threads;
  for (auto& result : results)
    threads.emplace_back([&] { dopant_linear(c.handle.get(), nullptr, x.data(), batch, result.data()); });
  for (auto& thread : threads) thread.join();
  dopant_set_threads(1);
  for (const auto& result : results) check(result == results[0], "%s: threads differ", c.name.c_str());
}

inline void check_weight(const Case& c, Random& random, bool every_batch = true) {
  if (c.handle == nullptr) return;
  check_threads(c, random);
  for (int batch = 1; batch <= 33; ++batch)
    if (every_batch || batch == 1 || batch == 4 || batch == 8 || batch == 17 || batch == 33)
      check_linear(c, batch, batch % 2 == 0, random);
  check_rows(c, random);
  const uint32_t payload = 0xffc001ffu;  // a NaN with bits below
  float strange;
  std::memcpy(&strange, &payload, 4);
  for (int batch : {1, 3, 8, 20})
    for (float bad : {NAN, strange, INFINITY, -INFINITY}) check_not_finite(c, batch, bad, random);
  check(dopant_weight_bytes(c.handle.get()) >= 0, "%s: bytes", c.name.c_str());
}

inline void check_dense() {
  Random random(1);
  const int shapes[][2] = {{1, 1}, {1, 70}, {70, 1}, {3, 16}, {13, 33}, {16, 64}, {40, 131}, {149, 67}};
  for (const auto& [rows, columns] : shapes) {
    check_weight(dense(rows, columns, random), random);
    for (bool fast : {false, true}) check_weight(dense_int8(rows, columns, fast, random), random);
  }
}

// Large ones are shared by threads, row by row: the same to the last bit.
inline void check_shared(const Case& c, Random& random) {
  for (int batch : {1, 3, 8, 20, 32}) {
    const auto x = random.values(static_cast<size_t>(batch) * c.dense.columns), bias = random.values(c.dense.rows);
    std::vector<float> y[2];
    for (int shared : {0, 1}) {
      y[shared].resize(static_cast<size_t>(batch) * c.dense.rows);
      dopant_set_threads(1 + 3 * shared);
      dopant_linear(c.handle.get(), bias.data(), x.data(), batch, y[shared].data());
    }
    check(y[0] == y[1], "%s, batch %d: other numbers with threads", c.name.c_str(), batch);
  }
  dopant_set_threads(1);
}

inline void check_large_dense() {
  Random random(6);
  check_shared(dense(1003, 651, random), random);
  for (bool fast : {false, true}) check_shared(dense_int8(2001, 650, fast, random), random);
}

// Sums as large as they can be: all values and all activations at their limits.
inline void check_full_dense() {
  for (const int columns : {1, 650, 65536, 65537})
    for (const int8_t value : {int8_t{127}, int8_t{-128}}) {
      const int rows = 5;
      const std::vector<int8_t> values(static_cast<size_t>(rows) * columns, value);
      const std::vector<float> scales(rows, 0.5f);
      const Case c("", dopant_dense_int8(rows, columns, values.data(), scales.data(), 1), Matrix(1, 1));
      for (int batch : {1, 3, 8}) {
        const std::vector<float> x(static_cast<size_t>(batch) * columns, -2.0f);
        std::vector<float> y(static_cast<size_t>(batch) * rows);
        dopant_linear(c.handle.get(), nullptr, x.data(), batch, y.data());
        const float wanted = -1.0f * value * columns;
        for (const float got : y)
          check(std::fabs(got - wanted) <= 1e-3f * std::fabs(wanted), "%d columns of %d, batch %d: %g", columns, value, batch, got);
      }
    }
}

inline void check_sparse() {
  Random random(2);
  const int64_t too_many[] = {0, int64_t{1} << 31};
  check(dopant_sparse(1, 1, 0, too_many, nullptr, nullptr) == nullptr, "2^31 non-zeros are not refused");
  for (Values kind : {Values::kFloat, Values::kInt8, Values::kFast}) {
    const auto with = [&](const char* name, int rows, int columns, auto count) {
      const Pattern pattern(rows, columns, count, random);
      for (bool lookup : {false, true}) {
        check_weight(sparse(name, pattern, lookup, kind, random), random, columns < 10000);
        check_spreads_no_further(sparse(name, pattern, lookup, kind, random, false), random);
        check_others_stay(sparse(name, pattern, lookup, kind, random), random);
      }
    };
    // Banks of one to four registers, or of one to eight tables, where values are of 8 bits; the others take panels or gaps.
    with("even, banks of 4", 64, 48, [](int) { return 48; });
    with("even, banks of 32", 48, 128, [](int) { return 16; });
    with("even, banks of 64", 40, 192, [](int) { return 12; });
    with("even, banks of 80", 40, 240, [](int) { return 12; });
    with("even, banks of 96", 40, 288, [](int) { return 12; });
    with("even, twenty banks of 34", 136, 680, [](int) { return 80; });
    with("even, banks of 128", 121, 384, [](int) { return 12; });
    with("even", 70, 131, [](int) { return 12; });
    with("even", 33, 300, [](int) { return 12; });
    with("even", 48, 561, [](int) { return 12; });
    with("even", 31, 757, [](int) { return 12; });
    with("even, several turns of rows", 1100, 300, [](int) { return 12; });
    with("even but for two rows", 160, 300, [](int r) { return r % 90 == 5 ? 35 : 11; });
    with("uneven", 67, 300, [](int r) { return r % 9 == 0 ? 60 : r % 4; });
    with("empty", 10, 40, [](int) { return 0; });
    with("full", 18, 67, [](int) { return 67; });
    with("one row", 1, 90, [](int) { return 20; });
    with("one column", 90, 1, [](int r) { return r % 2; });
    with("one entry", 33, 47, [](int r) { return r == 32 ? 1 : 0; });
    with("one full row", 40, 280, [](int r) { return r == 39 ? 280 : 0; });
    with("tall", 700, 20, [](int r) { return r % 3; });
    with("long", 20, 2600, [](int r) { return 30 * (r % 4); });
    with("long gaps", 40, 9000, [](int r) { return r % 6; });
    with("long rows with long gaps", 3, 65536, [](int) { return 90; });
    // Panels of floats are made where 36 of 64 rows have something in a strip of 32 columns.
    with("just too little", 64, 32, [](int r) { return r < 35; });
    with("just enough", 64, 32, [](int r) { return r < 36; });
    with("enough in some blocks", 150, 70, [](int r) { return r < 64 ? 2 : r % 5 == 0 ? 9 : 0; });
    with("very long", 5, 70001, [](int r) { return 40 * (r % 3); });
  }
  Pattern apart(2, 200001, [](int) { return 0; }, random);  // a strip between with nothing in it
  apart.column_of = {5, 200000, 7, 65535, 131072};
  apart.starts = {0, 2, 5};
  check_weight(sparse("apart", apart, false, Values::kInt8, random), random, false);
  check_rows(sparse("apart", apart, true, Values::kFloat, random), random);
  for (int columns : {131072, 131073})
    check_linear(sparse("of whole strips", Pattern(2, columns, [](int) { return 90; }, random), false, Values::kFloat, random), 5, true, random);
  for (Values kind : {Values::kFloat, Values::kInt8}) {
    const Case empty = sparse("empty", Pattern(1000, 500, [](int) { return 0; }, random), false, kind, random);
    check(dopant_weight_bytes(empty.handle.get()) <= 4 * 1000, "%s takes %lld bytes", empty.name.c_str(),
          static_cast<long long>(dopant_weight_bytes(empty.handle.get())));
  }
}

// Vectors times 8-bit values, exact, alone and together: however large some inputs are, each row is held to the sizes of what
// it sums up itself, and to two millionths of the size that inputs have on average, as the logarithm goes.
template <class Count>
inline void check_magnitudes(const char* form, Count count) {
  Random random(7);
  const int rows = 67, columns = 300;
  const Case c = sparse(form, Pattern(rows, columns, count, random), false, Values::kInt8, random);
  const auto even = random.values(columns);
  std::vector<const char*> names;
  std::vector<float> inputs;
  const auto with = [&](const char* name, auto change) {
    names.push_back(name);
    for (int j = 0; j < columns; ++j) inputs.push_back(change(even[j], j));
  };
  const auto one_of = [](float large) { return [=](float v, int j) { return j == 77 ? large : v; }; };
  with("as they are", [](float v, int) { return v; });
  with("one of 1", one_of(1.0f));  // a power of two, and the number below it, which is rounded up to it
  with("one of almost 1", one_of(0.99999994f));
  with("one of -1", one_of(-1.0f));
  for (const float large : {30.0f, 900.0f, 3e4f, -3e9f, 3e34f}) with("one large", one_of(large));
  with("one alone", [](float v, int j) { return j == 5 ? v : 0.0f; });
  with("zeros", [](float, int) { return 0.0f; });
  for (const float size : {1e-12f, 1e-24f, 1e-30f, 1e-38f, 1e-42f, 1e30f, 2e34f})
    with("all of a size", [=](float v, int) { return v * size; });
  for (const int most : {8, 30, 90}) with("of all sizes", [=](float v, int j) { return std::ldexp(v, j % most - most / 2); });

  const int all = static_cast<int>(names.size());
  for (const int together : {1, 4, 8, 14, all})
    for (int first = 0; first + together <= all; first += together) {
      std::vector<float> y(static_cast<size_t>(together) * rows);
      check(dopant_linear(c.handle.get(), nullptr, inputs.data() + first * columns, together, y.data()) == 0, "%s", dopant_error());
      for (int b = 0; b < together; ++b) {
        const float* x = inputs.data() + (first + b) * columns;
        double sum = 0.0, others = 0.0;
        for (int j = 0; j < columns; ++j)
          if (x[j] != 0.0f) sum += std::log(std::fabs(double{x[j]})), ++others;
        const double usual = others == 0.0 ? 0.0 : std::exp(sum / others);
        for (int i = 0; i < rows; ++i) {
          double wanted = 0.0, size = 0.0, weight = 0.0;
          for (int j = 0; j < columns; ++j) {
            wanted += c.dense.at(i, j) * x[j];
            size += std::fabs(c.dense.at(i, j) * x[j]);
            weight += std::fabs(c.dense.at(i, j));
          }
          const double got = y[static_cast<size_t>(b) * rows + i], allowed = 1e-6 * size + weight * (2e-6 * usual + 1e-36);
          check(std::fabs(got - wanted) <= allowed, "%s, %s, %d together, row %d: %.9g, not %.9g (± %.2g)", c.name.c_str(),
                names[first + b], together, i, got, wanted, allowed);
        }
      }
    }
}

inline void check_magnitudes() {
  check_magnitudes("in banks", [](int) { return 20; });
  check_magnitudes("in panels", [](int r) { return r % 9 == 0 ? 60 : r % 4; });
}

// As large as in an LSTM; the bound of the other cases would allow more.
inline void check_fast_kronecker(int batch, Random& random) {
  const Case c = kronecker(1, {52, 26, 50, 50}, true, random);
  const int rows = c.dense.rows, columns = c.dense.columns;
  const auto x = random.values(static_cast<size_t>(batch) * columns);
  std::vector<float> y(static_cast<size_t>(batch) * rows);
  dopant_linear(c.handle.get(), nullptr, x.data(), batch, y.data());
  double error = 0.0, size = 0.0, worst = 0.0, largest = 0.0;
  for (int b = 0; b < batch; ++b)
    for (int i = 0; i < rows; ++i) {
      double wanted = 0.0;
      for (int j = 0; j < columns; ++j) wanted += c.dense.at(i, j) * x[static_cast<size_t>(b) * columns + j];
      const double differs = std::fabs(y[static_cast<size_t>(b) * rows + i] - wanted);
      error += differs * differs;
      size += wanted * wanted;
      worst = std::fmax(worst, differs);
      largest = std::fmax(largest, std::fabs(wanted));
    }
  check(error <= 2.7e-4 * 2.7e-4 * size && worst <= 5e-4 * largest, "%s: errs by %g of outputs' size, by %g of the largest",
        c.name.c_str(), std::sqrt(error / size), worst / largest);
}

// An infinite input makes infinite outputs of the right sign, as in floats: an LSTM's gates are then 0 or 1.
inline void check_infinite_kronecker(int batch, Random& random) {
  const Case c = kronecker(1, {3, 4, 5, 2}, true, random);
  const int rows = c.dense.rows, columns = c.dense.columns;
  for (int item : {0, batch - 1}) {
    auto x = random.values(static_cast<size_t>(batch) * columns);
    x[static_cast<size_t>(item) * columns + 3] = INFINITY;
    std::vector<float> y(static_cast<size_t>(batch) * rows);
    dopant_linear(c.handle.get(), nullptr, x.data(), batch, y.data());
    for (int i = 0; i < rows; ++i) {
      const float got = y[static_cast<size_t>(item) * rows + i];
      check(std::isinf(got) && (got > 0) == (c.dense.at(i, 3) > 0), "%s: infinity in batch %d, output %d: %g",
            c.name.c_str(), item, i, got);
    }
  }
}

// Numbers near the end of floats' range, whose products are not.
inline void check_large_kronecker(int batch) {
  const std::vector<float> left(20 * 10, 1e-3f), right(16 * 6, 1e-3f);
  const float* factors[] = {left.data(), right.data()};
  const int32_t shapes[] = {20, 10, 16, 6};
  const Case c("", dopant_kronecker(1, 2, shapes, factors, true), Matrix(320, 60));
  std::vector<float> x(static_cast<size_t>(batch) * 60), y(static_cast<size_t>(batch) * 320);
  for (int b = 0; b < batch; ++b) x[b * 60] = 2e38f;
  dopant_linear(c.handle.get(), nullptr, x.data(), batch, y.data());
  for (const float got : y) check(std::fabs(got - 2e32f) <= 1e29f, "2e38 times 1e-6, batch %d: %g", batch, got);
}

inline void check_kronecker() {
  Random random(3);
  const std::vector<int32_t> shapes[] = {{5, 7},
                                         {1, 1, 9, 5},
                                         {7, 5, 1, 1},
                                         {3, 4, 5, 2},
                                         {13, 16, 16, 5},
                                         {5, 17, 33, 3},
                                         {1, 6, 8, 1},
                                         {6, 1, 1, 8},
                                         {2, 3, 4, 5, 3, 2},
                                         {4, 3, 1, 7, 17, 2},
                                         {2, 2, 2, 3, 3, 2, 2, 3}};
  for (const auto& factors : shapes)
    for (int terms = 1; terms <= 3; ++terms)
      for (bool fast : {false, true}) check_weight(kronecker(terms, factors, fast, random), random);
  for (const auto& factors : shapes) check_weight(kronecker(1, factors, true, random, Rows::kUneven), random);
  check_weight(kronecker(1, {2, 140, 3, 2}, true, random), random, false);
  // Of one to six registers for one lane, odd numbers among them.
  const std::vector<int32_t> for_one[] = {{20, 10, 16, 6}, {30, 15, 32, 17}, {25, 10, 45, 14}, {20, 12, 75, 21}, {40, 21, 85, 33}};
  for (const auto& factors : for_one) check_weight(kronecker(1, factors, true, random), random, false);
  for (int batch : {1, 16}) check_fast_kronecker(batch, random);
  for (int batch : {1, 16}) check_large_kronecker(batch);
  for (int batch : {1, 18}) check_infinite_kronecker(batch, random);
}

inline void check_composed() {
  Random random(4);
  const auto count = [](int r) { return r % 5; };
  for (Values kind : {Values::kFloat, Values::kInt8, Values::kFast}) {
    const Case overlay = sparse("overlay", Pattern(60, 42, count, random), false, kind, random);
    check_weight(sum(kronecker(1, {12, 6, 5, 7}, true, random), overlay), random);
    check_weight(sum(kronecker(2, {12, 6, 5, 7}, false, random), overlay), random);
    const Pattern even(70, 131, [](int) { return 12; }, random);
    check_weight(sum(dense(70, 131, random), sparse("even", even, false, kind, random)), random);
    check_weight(stack(overlay, dense(9, 42, random)), random);
    const Case small = kronecker(1, {3, 6, 3, 7}, kind == Values::kFast, random);
    check_weight(stack(stack(dense(1, 42, random), overlay), small), random);
  }
  for (bool fast : {false, true})
    check_weight(sum(dense_int8(30, 50, fast, random), kronecker(1, {6, 5, 5, 10}, fast, random)), random);
  const Case twice = dense(42, 9, random);
  check_weight(product(dense(7, 42, random), sum(twice, twice)), random);
  const int64_t no_starts[4] = {};
  const int32_t no_column = 0;
  const float no_value = 0.0f;
  const int8_t no_level = 0;
  const float scales[3] = {1.0f, 1.0f, 1.0f};
  for (void* made : {dopant_sparse(3, 0, 0, no_starts, &no_column, &no_value),
                     dopant_sparse_int8(3, 0, 0, no_starts, &no_column, &no_level, scales, 0),
                     dopant_sparse_int8(3, 0, 0, no_starts, &no_column, &no_level, scales, 1)}) {
    const std::unique_ptr<void, void (*)(void*)> empty(made, dopant_free_weight);
    for (int batch : {1, 8, 40}) {
      std::vector<float> out(static_cast<size_t>(3) * batch, 5.0f);
      dopant_linear(empty.get(), nullptr, &no_value, batch, out.data());
      check(std::count(out.begin(), out.end(), 0.0f) == 3 * batch, "no columns, batch %d", batch);
    }
  }
  for (int rank : {1, 3, 16, 21}) check_weight(product(dense(37, rank, random), dense(rank, 29, random)), random);
  const Case low_rank = product(dense(20, 4, random), dense_int8(4, 42, false, random));
  check_weight(stack(low_rank, sum(low_rank, dense(20, 42, random))), random);
}
