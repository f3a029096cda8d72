// LSTMs of every form, held to a plain one in double.
#pragma once

#include <algorithm>

#include "weights.hpp"

inline double sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }

// The weights of one layer in one direction.
struct Cell {
  Case input;  // of [x; h] where there is no recurrent one
  std::shared_ptr<Case> recurrent, projection;
  std::vector<float> bias;
  int inputs, hidden;

  int outputs() const { return projection ? projection->dense.rows : hidden; }
};

struct Network {
  std::string name;
  std::vector<Cell> cells;  // layer by layer, direction by direction
  int directions;
  bool fast = false;
  double allowed = 1e-5;  // difference

  int inputs() const { return cells.front().inputs; }
  int outputs() const { return cells.back().outputs() * directions; }
  size_t h_size(int batch) const { return size(batch, &Cell::outputs); }
  size_t c_size(int batch) const {
    size_t total = 0;
    for (const Cell& cell : cells) total += static_cast<size_t>(cell.hidden) * batch;
    return total;
  }

  std::shared_ptr<void> handle() const {
    std::vector<const void*> input, recurrent, projection;
    std::vector<const float*> bias;
    std::vector<int32_t> inputs, hidden;
    for (const Cell& cell : cells) {
      input.push_back(cell.input.handle.get());
      recurrent.push_back(cell.recurrent ? cell.recurrent->handle.get() : nullptr);
      projection.push_back(cell.projection ? cell.projection->handle.get() : nullptr);
      bias.push_back(cell.bias.empty() ? nullptr : cell.bias.data());
      inputs.push_back(cell.inputs);
      hidden.push_back(cell.hidden);
    }
    void* made = dopant_lstm(static_cast<int>(cells.size()), directions, input.data(), recurrent.data(),
                             projection.data(), bias.data(), inputs.data(), hidden.data(), fast);
    check(made != nullptr, "%s: %s", name.c_str(), dopant_error());
    return {made, dopant_free_lstm};
  }

 private:
  size_t size(int batch, int (Cell::*side)() const) const {
    size_t total = 0;
    for (const Cell& cell : cells) total += static_cast<size_t>((cell.*side)()) * batch;
    return total;
  }
};

inline void add_product(const Matrix& w, const double* x, int first, int count, double* y) {
  for (int i = 0; i < w.rows; ++i)
    for (int j = 0; j < count; ++j) y[i] += w.at(i, first + j) * x[j];
}

// One sequence x (steps, inputs) -> y (steps, outputs); h and c are those of one item of the batch, cell after cell.
inline std::vector<double> plain_lstm(const Network& network, std::vector<double> x, int steps, std::vector<double>& h,
                                      std::vector<double>& c) {
  size_t h_at = 0, c_at = 0;
  for (size_t first = 0; first < network.cells.size(); first += static_cast<size_t>(network.directions)) {
    const int width = network.cells[first].outputs() * network.directions;
    std::vector<double> y(static_cast<size_t>(steps) * width);
    for (int direction = 0; direction < network.directions; ++direction) {
      const Cell& cell = network.cells[first + direction];
      double *state = h.data() + h_at, *memory = c.data() + c_at;
      for (int n = 0; n < steps; ++n) {
        const int t = direction == 1 ? steps - 1 - n : n, size = cell.hidden;
        std::vector<double> gates(cell.bias.begin(), cell.bias.end()), out(size);
        gates.resize(static_cast<size_t>(4) * size);
        add_product(cell.input.dense, x.data() + static_cast<size_t>(t) * cell.inputs, 0, cell.inputs, gates.data());
        if (cell.recurrent)
          add_product(cell.recurrent->dense, state, 0, cell.outputs(), gates.data());
        else
          add_product(cell.input.dense, state, cell.inputs, cell.outputs(), gates.data());
        for (int k = 0; k < size; ++k) {
          memory[k] = sigmoid(gates[size + k]) * memory[k] + sigmoid(gates[k]) * std::tanh(gates[2 * size + k]);
          out[k] = sigmoid(gates[3 * size + k]) * std::tanh(memory[k]);
        }
        if (cell.projection) {
          std::vector<double> projected(cell.outputs());
          add_product(cell.projection->dense, out.data(), 0, size, projected.data());
          out = projected;
        }
        std::copy(out.begin(), out.end(), state);
        std::copy(out.begin(), out.end(), y.begin() + static_cast<size_t>(t) * width + direction * cell.outputs());
      }
      h_at += static_cast<size_t>(cell.outputs());
      c_at += static_cast<size_t>(cell.hidden);
    }
    x = std::move(y);
  }
  return x;
}

// Of an array (cells, batch, features of the cell) what belongs to one item of the batch.
template <class T>
std::vector<double> item_of(const Network& network, const T& all, int item, int batch, bool hidden) {
  std::vector<double> result;
  size_t at = 0;
  for (const Cell& cell : network.cells) {
    const size_t size = static_cast<size_t>(hidden ? cell.hidden : cell.outputs());
    for (size_t k = 0; k < size; ++k) result.push_back(all[at + static_cast<size_t>(item) * size + k]);
    at += size * static_cast<size_t>(batch);
  }
  return result;
}

struct Outcome {
  Array y, h, c;
};

// What `dopant_lstm_step` takes, as callers lay it out.
struct StepCall {
  const void* lstm;
  const float *x, *before;
  float *after, *y;
  int batch;
};

// All steps in one call, or a call each, every other one by `dopant_lstm_step`.
inline Outcome run(const Network& network, const std::vector<float>& x, int steps, int batch,
                   const std::vector<float>& h, const std::vector<float>& c, bool one_by_one) {
  const auto lstm = network.handle();
  const int offset = (steps + batch) % 3;
  const size_t in = static_cast<size_t>(batch) * network.inputs(), out = static_cast<size_t>(batch) * network.outputs();
  const size_t size = static_cast<size_t>(dopant_state_size(lstm.get(), batch));
  Array first(size, offset), state(size, offset), from(x, offset), h_in(h, offset), c_in(c, offset);
  std::fill_n(state.data(), size, NAN);
  Outcome result{{out * steps, offset}, {h.size(), offset}, {c.size(), offset}};
  dopant_state_from(lstm.get(), h_in.data(), c_in.data(), batch, first.data());
  const bool zeros = std::all_of(h.begin(), h.end(), [](float v) { return v == 0.0f; }) &&
                     std::all_of(c.begin(), c.end(), [](float v) { return v == 0.0f; });
  const int calls = one_by_one ? steps : 1;
  for (int n = 0; n < calls; ++n) {
    const float* before = n > 0 ? state.data() : zeros ? nullptr : first.data();
    const float* now = from.data() + in * n;
    float* y = result.y.data() + out * n;
    const StepCall call{lstm.get(), now, before, state.data(), y, batch};
    const int failed = one_by_one && n % 2 == 1 ? dopant_lstm_step(reinterpret_cast<const DopantStep*>(&call))
                                                : dopant_lstm_run(lstm.get(), now, steps / calls, batch, before, state.data(), y);
    check(failed == 0, "%s: %s", network.name.c_str(), dopant_error());
  }
  const size_t lanes = size / static_cast<size_t>(dopant_state_size(lstm.get(), 1));
  for (size_t k = 0; k < size; ++k)  // lanes that only fill registers up must not slow down what comes next
    if (k % lanes >= static_cast<size_t>(batch) &&
        !check(std::isfinite(state[k]), "%s: a lane of no item is %g", network.name.c_str(), state[k]))
      break;
  dopant_state_to(lstm.get(), state.data(), batch, result.h.data(), result.c.data());
  return result;
}

inline void check_lstm(const Network& network, int steps, int batch, Random& random) {
  const auto x = random.values(static_cast<size_t>(steps) * batch * network.inputs(), 2.0f);
  const float first = steps % 2 == 0 ? 1.0f : 0.0f;  // from a state, or from zeros
  const auto h = random.values(network.h_size(batch), first), c = random.values(network.c_size(batch), first);
  const Outcome whole = run(network, x, steps, batch, h, c, false);
  const int calls = network.directions == 1 ? 2 : 1;
  for (int call = 0; call < calls; ++call) {
    const Outcome outcome = call == 0 ? whole : run(network, x, steps, batch, h, c, true);
    for (int item = 0; item < batch; ++item) {
      std::vector<double> inputs;
      for (int t = 0; t < steps; ++t)
        for (int j = 0; j < network.inputs(); ++j)
          inputs.push_back(x[(static_cast<size_t>(t) * batch + item) * network.inputs() + j]);
      auto h_item = item_of(network, h, item, batch, false), c_item = item_of(network, c, item, batch, true);
      const auto y = plain_lstm(network, inputs, steps, h_item, c_item);
      double worst = 0.0;
      const auto differ = [&](double got, double wanted) {
        const double difference = std::fabs(got - wanted) / std::fmax(1.0, std::fabs(wanted));
        worst = difference <= worst ? worst : difference;
      };
      for (int t = 0; t < steps; ++t)
        for (int j = 0; j < network.outputs(); ++j)
          differ(outcome.y[(static_cast<size_t>(t) * batch + item) * network.outputs() + j],
                 y[static_cast<size_t>(t) * network.outputs() + j]);
      const auto h_got = item_of(network, outcome.h, item, batch, false);
      const auto c_got = item_of(network, outcome.c, item, batch, true);
      for (size_t k = 0; k < h_item.size(); ++k) differ(h_got[k], h_item[k]);
      for (size_t k = 0; k < c_item.size(); ++k) differ(c_got[k], c_item[k]);
      // Errors grow as long as a state is kept.
      const double allowed = network.allowed * (steps > 7 ? 1.0 : 0.5);
      if (!check(worst <= allowed, "%s, %d steps%s, item %d of %d: differs by %g", network.name.c_str(), steps,
                 call == 1 ? " one by one" : "", item, batch, worst))
        return;
    }
  }
}

// A bad input of one item at one step: as in the plain LSTM, what is NaN is NaN and what is finite is the same.
// others: in 8 bits only the other items are looked at, as a NaN may spread further than its non-zeros.
inline void check_lstm_not_finite(const Network& network, int steps, int batch, float bad, bool others, Random& random) {
  auto x = random.values(static_cast<size_t>(steps) * batch * network.inputs());
  const auto h = random.values(network.h_size(batch)), c = random.values(network.c_size(batch));
  const int at = random.below(steps), hit = random.below(batch);
  x[(static_cast<size_t>(at) * batch + hit) * network.inputs()] = bad;
  const Outcome outcome = run(network, x, steps, batch, h, c, false);
  for (int item = 0; item < batch; ++item) {
    if (others && item == hit) continue;
    std::vector<double> inputs;
    for (int t = 0; t < steps; ++t)
      for (int j = 0; j < network.inputs(); ++j)
        inputs.push_back(x[(static_cast<size_t>(t) * batch + item) * network.inputs() + j]);
    auto h_item = item_of(network, h, item, batch, false), c_item = item_of(network, c, item, batch, true);
    const auto y = plain_lstm(network, inputs, steps, h_item, c_item);
    for (int t = 0; t < steps; ++t)
      for (int j = 0; j < network.outputs(); ++j) {
        const double got = outcome.y[(static_cast<size_t>(t) * batch + item) * network.outputs() + j];
        const double wanted = y[static_cast<size_t>(t) * network.outputs() + j];
        const bool same = std::isfinite(wanted) ? std::fabs(got - wanted) <= network.allowed
                                                : std::isnan(wanted) == std::isnan(got);
        if (!check(same, "%s, %g at step %d of item %d of %d: step %d of item %d is %g, not %g", network.name.c_str(),
                   bad, at, hit, batch, t, item, got, wanted))
          return;
      }
  }
}

enum class Form { kDense, kSparse, kSparseInt8, kKronecker, kDoped, kBanks, kFastCell, kFast, kFastBanks };

inline Case lstm_weight(Form form, int rows, int columns, Random& random) {
  const auto count = [columns = columns](int r) { return r % 4 * columns / 6; };
  const auto pattern = [&] { return Pattern(rows, columns, count, random); };
  const auto product = [&] {
    return rows % 4 == 0 && columns % 3 == 0 ? kronecker(2, {rows / 4, 3, 4, columns / 3}, false, random)
                                             : kronecker(1, {rows, 1, 1, columns}, false, random);
  };
  switch (form) {
    case Form::kSparse: return sparse("overlay", pattern(), false, Values::kFloat, random);
    case Form::kSparseInt8: return sparse("overlay", pattern(), false, Values::kInt8, random);
    case Form::kKronecker: return product();
    case Form::kDoped: return sum(product(), sparse("overlay", pattern(), false, Values::kFloat, random));
    case Form::kBanks:
    case Form::kFastBanks: {
      const Values kind = form == Form::kBanks ? Values::kInt8 : Values::kFast;
      const Pattern even(rows, columns, [columns = columns](int) { return columns < 32 ? 0 : 4; }, random);
      return sum(product(), sparse("overlay in banks", even, false, kind, random));
    }
    case Form::kFast:
      return sum(kronecker(1, {rows, 1, 1, columns}, true, random),
                 sparse("overlay", pattern(), false, Values::kFast, random));
    default: return dense(rows, columns, random);
  }
}

// As compilers round.
#if defined(__clang__)
constexpr double kTablesErr = 0.01;
#else
constexpr double kTablesErr = 0.006;
#endif

inline Network network_of(Form form, int inputs, int hidden, int projected, int layers, int directions, bool joint,
                          bool biased, Random& random, int wider = 0) {
  Network network{"LSTM of ", {}, directions};
  const bool rounded = form == Form::kFast || form == Form::kFastBanks;
  network.fast = rounded || form == Form::kFastCell;
  // 8-bit activations err by about a hundredth a step with weights as large as these, tables by a thousandth, and some of
  // it lasts: how much depends on the rounding of compilers.
  if (network.fast) network.allowed = rounded ? 0.06 : kTablesErr;
  if (form == Form::kDoped) network.allowed = 1.5e-5;  // of two sums of floats with large weights, where one is split in two
  for (int layer = 0, width = inputs; layer < layers; ++layer) {
    const int size = hidden + layer * wider, outputs = projected > 0 ? projected : size;
    for (int direction = 0; direction < directions; ++direction) {
      const auto one = [&](int rows, int columns) {
        return std::make_shared<Case>(lstm_weight(form, rows, columns, random));
      };
      const auto input = one(4 * size, joint ? width + outputs : width);
      Cell cell{*input, nullptr, nullptr, {}, width, size};
      if (!joint) cell.recurrent = one(4 * size, outputs);
      if (projected > 0) cell.projection = std::make_shared<Case>(dense(projected, size, random));
      if (biased) cell.bias = random.values(static_cast<size_t>(4) * size);
      network.cells.push_back(std::move(cell));
    }
    width = outputs * directions;
  }
  network.name += (network.fast ? "fast " : "") + network.cells[0].input.name + (joint ? ", joint" : ", separate") +
                  (biased ? "" : ", no bias") + ", projected to " + std::to_string(projected) + ", " +
                  std::to_string(layers) + " layers, " + std::to_string(directions) + " directions";
  return network;
}

// Gates that are wide open or shut stay so, and zeros stay zeros, over many steps.
inline void check_saturated() {
  const int hidden = 19, steps = 1000;
  const std::vector<float> zeros(static_cast<size_t>(4) * hidden * (1 + hidden));
  const Case weight("zeros", dopant_dense(4 * hidden, 1 + hidden, zeros.data()), Matrix(4 * hidden, 1 + hidden));
  struct {
    float i, f, g, o, c, wanted_c, wanted_h;
  } cases[] = {{-20, 20, 0, 20, 3, 3, std::tanh(3.0f)}, {-20, 20, 20, 20, 0.5f, 0.5f, std::tanh(0.5f)},
               {0, 0, 0, 0, 0, 0, 0},                   {0, 20, 0, 0, 0, 0, 0},
               {20, -20, 20, -20, 7, 1, 0},             {-30, 20, -0.5f, 20, 3.685f, 3.685f, std::tanh(3.685f)}};
  for (bool fast : {false, true})
    for (int batch : {1, 3, 8, 16})
      for (const auto& k : cases) {
        Network network{"saturated LSTM", {}, 1};
        network.fast = fast;
        Cell cell{weight, nullptr, nullptr, {}, 1, hidden};
        for (float bias : {k.i, k.f, k.g, k.o}) cell.bias.insert(cell.bias.end(), hidden, bias);
        network.cells.push_back(cell);
        const std::vector<float> x(static_cast<size_t>(steps) * batch), h(static_cast<size_t>(hidden) * batch);
        const std::vector<float> c(h.size(), k.c);
        const Outcome outcome = run(network, x, steps, batch, h, c, false);
        const double h_allowed = fast ? 3e-4 * (k.wanted_h != 0) + 1e-8 : 1e-6;
        for (size_t n = 0; n < c.size(); ++n)
          if (!check(std::fabs(outcome.c[n] - k.wanted_c) <= 1e-5 && std::fabs(outcome.h[n] - k.wanted_h) <= h_allowed,
                     "gates at %g %g %g %g, %s, batch %d: c %g, h %g", k.i, k.f, k.g, k.o, fast ? "fast" : "exact", batch,
                     outcome.c[n], outcome.h[n]))
            break;
      }
}

// Two directions whose weights differ: one is split in two of x and of h where kernels want that, the other is not.
inline void check_mixed_directions() {
  Random random(8);
  const int inputs = 1000, hidden = 100;
  Network network{"LSTM of a sparse and a dense direction", {}, 2};
  for (Form form : {Form::kSparseInt8, Form::kDense})
    network.cells.push_back({lstm_weight(form, 4 * hidden, inputs + hidden, random), nullptr, nullptr, {}, inputs, hidden});
  network.allowed = 1e-4;  // sums of a thousand numbers as large as their weights
  for (int steps : {1, 5}) check_lstm(network, steps, steps == 1 ? 256 : 1, random);
}

inline void check_lstms() {
  check_saturated();
  Random random(5);
  const int sizes[][3] = {{5, 7, 0}, {16, 16, 0}, {3, 19, 6}, {1, 1, 0}, {12, 33, 0}, {9, 8, 3}};
  const int lengths[][2] = {{1, 1},  {40, 1}, {1, 3},  {7, 3},  {2, 8}, {40, 8},
                            {33, 2}, {1, 17}, {5, 17}, {3, 32}, {2, 33}, {2, 64}};
  int turn = 0;
  for (Form form : {Form::kDense, Form::kSparse, Form::kSparseInt8, Form::kKronecker, Form::kDoped,
                    Form::kFastCell, Form::kFast, Form::kBanks, Form::kFastBanks})
    for (bool joint : {true, false})
      for (const auto& [inputs, hidden, projected] : sizes) {
        const int directions = 1 + turn % 2, layers = 1 + turn / 2 % 2;
        const Network network =
            network_of(form, inputs, hidden, projected, layers, directions, joint, turn % 3 != 0, random);
        dopant_set_threads(1 + turn % 4);
        for (const auto& [steps, batch] : lengths)
          if ((turn + steps + batch) % 2 == 0 || steps == 1)
            check_lstm(network, steps, batch, random);
        ++turn;
      }
  dopant_set_threads(1);
  check_mixed_directions();
  for (Form form : {Form::kDense, Form::kSparse, Form::kDoped, Form::kFast})
    for (int batch = 1; batch <= 6; ++batch) {  // layers of different widths, and batches that are computed one by one
      const Network network = network_of(form, 10, 11, batch % 2 * 5, 3, 1, batch % 3 != 0, true, random, 3);
      for (int steps : {1, 4}) check_lstm(network, steps, batch, random);
    }
  for (bool joint : {true, false})
    for (int directions : {1, 2})
      for (int batch : {1, 3, 8, 17})
        for (float bad : {NAN, INFINITY, -INFINITY})
          for (Form form : {Form::kDense, Form::kFastCell})
            check_lstm_not_finite(network_of(form, 5, 9, 0, 2, directions, joint, true, random), 6, batch, bad, false,
                                  random);
  for (int batch : {1, 3, 8, 17, 32, 40, 64})
    for (int turn = 0; turn < 6; ++turn)
      check_lstm_not_finite(network_of(Form::kFast, 12, 16, 0, 1, 1, turn % 2 == 0, true, random), 3, batch, NAN, true,
                            random);
}
