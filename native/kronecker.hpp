// W = Σ_r F1_r ⊗ F2_r ⊗ …: x is taken as a tensor with an axis for each factor, and each factor multiplies its axis.
//
// For W = B (m1 × n1) ⊗ C (m2 × n2): (B ⊗ C) vec(X) = vec(B X Cᵀ), X being n1 × n2. That is m1·n1·n2 + m1·n2·m2
// multiply-accumulates instead of m1·m2·n1·n2, or n1·n2·m2 + m1·n1·m2 in the other order; the smaller one is taken.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <numeric>
#include <type_traits>
#include <vector>

#include "gemm.hpp"
#include "weight.hpp"

namespace dopant {

// Columns first … first + count - 1 of a weight; the others multiply zeros.
class SomeColumns final : public Weight {
 public:
  SomeColumns(WeightPointer whole, int first, int count)
      : Weight(whole->rows, count), whole_(std::move(whole)), first_(first) {}

  void apply(const float* x, float* y, int lanes) const override {
    in_place(x, lanes, [&](const float* wide) { whole_->apply(wide, y, lanes); });
  }
  void set(const float* x, float* y, int lanes) const override {
    in_place(x, lanes, [&](const float* wide) { whole_->set(wide, y, lanes); });
  }
  void row(int i, float* out) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float* wide = arena.take<float>(static_cast<size_t>(whole_->columns));
    std::memset(wide, 0, sizeof(float) * static_cast<size_t>(whole_->columns));
    whole_->row(i, wide);
    for (int j = 0; j < columns; ++j) out[j] += wide[first_ + j];
  }
  int most_singly() const override { return whole_->most_singly(); }
  size_t bytes() const override { return whole_->bytes(); }

 private:
  template <class Do>
  void in_place(const float* x, int lanes, Do todo) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const size_t before = static_cast<size_t>(first_) * lanes, count = static_cast<size_t>(columns) * lanes;
    const size_t all = static_cast<size_t>(whole_->columns) * lanes;
    float* wide = arena.take<float>(all);
    std::fill(wide, wide + before, 0.0f);
    std::memcpy(wide + before, x, sizeof(float) * count);
    std::fill(wide + before + count, wide + all, 0.0f);
    todo(wide);
  }

  const WeightPointer whole_;
  const int first_;
};

struct FactorShape {
  int rows, columns;
};

class Kronecker final : public Weight {
 public:
  // factors[f] points to (terms, rows, columns) floats.
  Kronecker(int terms, std::vector<FactorShape> shapes, const float* const* factors)
      : Weight(product(shapes, &FactorShape::rows), product(shapes, &FactorShape::columns)),
        terms_(terms),
        shapes_(std::move(shapes)),
        order_(cheapest_order()) {
    for (size_t f = 0; f < shapes_.size(); ++f)
      values_.emplace_back(factors[f], factors[f] + static_cast<size_t>(terms) * shapes_[f].rows * shapes_[f].columns);
    transposed_.resize(shapes_.size());
    std::vector<int> sizes = columns_of_factors();
    for (size_t f : order_) {
      const auto [m, n] = shapes_[f];
      if (product_of(sizes, f + 1) == 1)  // nothing lies behind its axis, of one lane, and that must be the vectors'
        for (int t = 0; t < terms; ++t)
          for (int j = 0; j < n; ++j)
            for (int i = 0; i < m; ++i) transposed_[f].push_back(values_[f][(static_cast<size_t>(t) * m + i) * n + j]);
      sizes[f] = m;
    }
  }

  void apply(const float* x, float* y, int lanes) const override { multiply(x, y, lanes, true); }
  void set(const float* x, float* y, int lanes) const override { multiply(x, y, lanes, false); }

  void row(int i, float* out) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float* grown = arena.take<float>(static_cast<size_t>(columns));
    float* before = arena.take<float>(static_cast<size_t>(columns));
    for (int term = 0; term < terms_; ++term) {
      int size = 1, below = rows, rest = i;
      grown[0] = 1.0f;
      for (size_t f = 0; f < shapes_.size(); ++f) {
        const auto [m, n] = shapes_[f];
        below /= m;
        const float* factor = values_[f].data() + (static_cast<size_t>(term) * m + rest / below) * n;
        rest %= below;
        std::swap(grown, before);
        for (int j = 0; j < size; ++j)
          for (int k = 0; k < n; ++k) grown[static_cast<size_t>(j) * n + k] = before[j] * factor[k];
        size *= n;
      }
      for (int j = 0; j < columns; ++j) out[j] += grown[j];
    }
  }

  const std::vector<size_t>& order() const { return order_; }  // of the factors, as they multiply

  // A few vectors one by one take as long as together where each half fills registers, and factors stay in the cache.
  int most_singly() const override {
    constexpr int kept = 6000;  // floats of a factor: half of the first-level cache
    std::vector<int> sizes = columns_of_factors();
    for (size_t f : order_) {
      const auto [m, n] = shapes_[f];
      const int behind = product_of(sizes, f + 1);
      if (W < 8 || (behind == 1 ? m : behind) < W / 2 || m * n > kept) return 1;
      sizes[f] = m;
    }
    return kFew;
  }

  // The columns of the first factor that they lie in, as a product; of which they may be some.
  WeightPointer columns_of(int first, int count) const override {
    const auto [m, n] = shapes_[0];
    const int below = columns / n, from = first / below, end = (first + count + below - 1) / below;
    std::vector<FactorShape> shapes = shapes_;
    shapes[0].columns = end - from;
    std::vector<float> some;
    for (int row = 0; row < terms_ * m; ++row) {
      const float* values = values_[0].data() + static_cast<size_t>(row) * n;
      some.insert(some.end(), values + from, values + end);
    }
    std::vector<const float*> factors{some.data()};
    for (size_t f = 1; f < shapes_.size(); ++f) factors.push_back(values_[f].data());
    const WeightPointer product = std::make_shared<Kronecker>(terms_, std::move(shapes), factors.data());
    if (product->columns == count) return product;
    return std::make_shared<SomeColumns>(product, first - from * below, count);
  }

  size_t bytes() const override {
    size_t total = 0;
    for (size_t f = 0; f < values_.size(); ++f) total += values_[f].size() + transposed_[f].size();
    return total * sizeof(float);
  }

 private:
  void multiply(const float* x, float* y, int lanes, bool onto) const {
    Arena& arena = Arena::of_this_thread();
    for (int term = 0; term < terms_; ++term) {
      std::vector<int> sizes = columns_of_factors();
      Arena::Scope scope(arena);
      const float* from = x;
      for (size_t step = 0; step < order_.size(); ++step) {
        const size_t f = order_[step];
        const bool last = step + 1 == order_.size();
        size_t size = static_cast<size_t>(lanes) * shapes_[f].rows;
        for (size_t g = 0; g < sizes.size(); ++g) size *= g == f ? 1 : static_cast<size_t>(sizes[g]);
        float* to = last ? y : arena.take<float>(size);
        multiply_axis(f, term, from, to, last && (onto || term > 0), sizes, lanes);
        sizes[f] = shapes_[f].rows;
        from = to;
      }
    }
  }

  std::vector<int> columns_of_factors() const {
    std::vector<int> sizes;
    for (const auto& shape : shapes_) sizes.push_back(shape.columns);
    return sizes;
  }
  static int product_of(const std::vector<int>& sizes, size_t first) {
    return std::accumulate(sizes.begin() + static_cast<std::ptrdiff_t>(first), sizes.end(), 1, std::multiplies<>());
  }
  static int product(const std::vector<FactorShape>& shapes, int FactorShape::*side) {
    int result = 1;
    for (const auto& shape : shapes) result *= shape.*side;
    return result;
  }

  // Tried one by one; nobody has more than a handful of factors.
  std::vector<size_t> cheapest_order() const {
    std::vector<size_t> order(shapes_.size()), best;
    std::iota(order.begin(), order.end(), 0);
    double least = 0.0;
    do {
      std::vector<double> sizes;
      for (const auto& shape : shapes_) sizes.push_back(shape.columns);
      double macs = 0.0;
      for (size_t f : order) {
        double step = shapes_[f].rows;
        for (double size : sizes) step *= size;
        macs += step;
        sizes[f] = shapes_[f].rows;
      }
      if (best.empty() || macs < least) best = order, least = macs;
    } while (shapes_.size() <= 6 && std::next_permutation(order.begin(), order.end()));
    return best;
  }

  // to = or, `onto` what is there, += from with axis f multiplied by factor f. A GEMM for each index before the axis; but
  // one for all of them where nothing lies behind the axis, with the transposed factor, or a register at most, in pieces.
  void multiply_axis(size_t f, int term, const float* from, float* to, bool onto, const std::vector<int>& sizes,
                     int lanes) const {
    const int m = shapes_[f].rows, n = shapes_[f].columns;
    size_t before = 1, behind = static_cast<size_t>(lanes);
    for (size_t g = 0; g < f; ++g) before *= static_cast<size_t>(sizes[g]);
    for (size_t g = f + 1; g < sizes.size(); ++g) behind *= static_cast<size_t>(sizes[g]);
    const float* factor = values_[f].data() + static_cast<size_t>(term) * m * n;
    if (behind == 1) {
      const float* transposed = transposed_[f].data() + static_cast<size_t>(term) * m * n;
      return gemm({from, n}, {transposed, m}, to, m, onto, static_cast<int>(before), n, m);
    }
    const auto in_pieces = [&](auto size) {
      constexpr int P = size;
      if constexpr (P <= W)
        if (before > 1 && behind == P) {
          const Pieces<P, const float> in{from, static_cast<size_t>(n) * P};
          const Pieces<P, float> out{to, static_cast<size_t>(m) * P};
          gemm({factor, n}, in, out, onto, m, n, static_cast<int>(before) * P);
          return true;
        }
      return false;
    };
    if (in_pieces(Size<4>()) || in_pieces(Size<8>()) || in_pieces(Size<16>())) return;
    const int wide = static_cast<int>(behind);
    for (size_t b = 0; b < before; ++b)
      gemm({factor, n}, {from + b * n * behind, wide}, to + b * m * behind, wide, onto, m, n, wide);
  }

  template <int N>
  using Size = std::integral_constant<int, N>;

  int terms_;
  std::vector<FactorShape> shapes_;
  std::vector<size_t> order_;
  std::vector<std::vector<float>> values_, transposed_;
};

}  // namespace dopant
