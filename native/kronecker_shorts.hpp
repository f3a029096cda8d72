// W = B ⊗ C in 16-bit numbers (the fast mode).
//
// A lane of x and each row of a factor are scaled to whole numbers (shorts.hpp); the upper halves of sums are whole numbers
// again, which the second factor takes as the first took x. The scales of the lane and of a row of each factor turn the
// second sums into floats.
//
// The dot instruction multiplies a pair of numbers in each of 16 lanes by a pair of a factor's, so x is put into pairs
// along the axis that is multiplied first. A tile is some rows of a factor times two registers: in the first product two
// neighbours along the other axis, and the upper halves of their sums are the pairs that the second product wants.
//
// That is half of the float kernel's instructions (see kronecker.hpp), and for each number of x and y a few to convert it.
#pragma once

#include <cmath>
#include <optional>

#include "kronecker.hpp"
#include "kronecker_shorts_one.hpp"

namespace dopant {

#if defined(__AVX512VNNI__)

constexpr int kMostShortColumns = 80;  // of a factor: with more, outputs err by more than 5e-4 of the largest

// A factor: rows of whole numbers, each with its scale.
class ShortFactor {
 public:
  ShortFactor(FactorShape shape, const float* values)
      : rows(shape.rows),
        columns(shape.columns),
        pairs((columns + 1) / 2),
        numbers_(static_cast<size_t>(rows) * pairs * 2) {
    each_tile([&](int first, int count) {
      int16_t* tile = numbers_.data() + static_cast<size_t>(first) * pairs * 2;
      for (int r = 0; r < count; ++r, values += columns) {
        const double scale = short_scale(values, columns);
        scales_.push_back(static_cast<float>(scale));
        for (int j = 0; j < columns; ++j)
          tile[(j / 2 * count + r) * 2 + j % 2] = static_cast<int16_t>(std::lrint(values[j] / scale));
      }
    });
  }

  // out(row, sum, sum), for each row, of its products with `left` and with `right` (pairs, lanes), added to `start`.
  template <class Out>
  void multiply(const Pair* left, const Pair* right, int start, const Out& out) const {
    each_tile([&](int row, int count) { tile_of<kMostRows>(count, row, left, right, start, out); });
  }

  const float* scales() const { return scales_.data(); }
  size_t bytes() const { return numbers_.size() * sizeof(int16_t) + scales_.size() * sizeof(float); }

  const int rows, columns, pairs;

 private:
  static constexpr int kMostRows = 13;  // of a tile: 26 of 32 registers hold sums

  // Rows are shared out evenly, as in gemm.hpp. Those of a tile lie together, pair by pair.
  template <class Do>
  void each_tile(Do todo) const {
    for (int row = 0, tiles = (rows + kMostRows - 1) / kMostRows; tiles > 0; --tiles) {
      const int count = (rows - row + tiles - 1) / tiles;
      todo(row, count);
      row += count;
    }
  }

  // Of `count` rows, R at most.
  template <int R, class Out>
  void tile_of(int count, int row, const Pair* left, const Pair* right, int start, const Out& out) const {
    if constexpr (R > 1)
      if (count < R) return tile_of<R - 1>(count, row, left, right, start, out);
    const int16_t* from = numbers_.data() + static_cast<size_t>(row) * pairs * 2;
    __m512i sums[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm512_set1_epi32(start);
    for (int p = pairs; p > 0; --p, from += 2 * R, left += kPairLanes, right += kPairLanes) {
      const __m512i a = _mm512_load_si512(left), b = _mm512_load_si512(right);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        Pair pair;
        std::memcpy(&pair, from + 2 * r, sizeof(Pair));
        const __m512i factor = _mm512_set1_epi32(pair);
        sums[r][0] = _mm512_dpwssd_epi32(sums[r][0], a, factor);
        sums[r][1] = _mm512_dpwssd_epi32(sums[r][1], b, factor);
        asm("" : "+v"(sums[r][0]), "+v"(sums[r][1]));  // else the compiler keeps sums in memory
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) out(row + r, sums[r][0], sums[r][1]);
  }

  AlignedVector<int16_t> numbers_;
  std::vector<float> scales_;
};

class KroneckerShorts final : public Weight {
 public:
  static bool fits(int terms, const std::vector<FactorShape>& shapes, const float* const* factors) {
    if (terms != 1 || shapes.size() != 2) return false;
    for (size_t f = 0; f < 2; ++f) {
      const auto [m, n] = shapes[f];
      if (n > kMostShortColumns) return false;
      for (size_t i = 0; i < static_cast<size_t>(m) * n; ++i)
        if (!std::isfinite(factors[f][i])) return false;
    }
    return true;
  }

  KroneckerShorts(const std::vector<FactorShape>& shapes, const float* const* factors)
      : Weight(shapes[0].rows * shapes[1].rows, shapes[0].columns * shapes[1].columns),
        floats_(1, shapes, factors),
        axis_(floats_.order()[0]),
        first_(shapes[axis_], factors[axis_]),
        second_(shapes[1 - axis_], factors[1 - axis_]) {
    const auto [m1, n1] = shapes[0];
    const auto [m2, n2] = shapes[1];
    if (KroneckerShortsOne::pays(m1, n1, m2, n2)) one_.emplace(m1, n1, factors[0], m2, n2, factors[1]);
  }

  void apply(const float* x, float* y, int lanes) const override {
    if (!multiply<true>(x, y, lanes)) floats_.apply(x, y, lanes);
  }
  void set(const float* x, float* y, int lanes) const override {
    if (!multiply<false>(x, y, lanes)) floats_.set(x, y, lanes);
  }
  void row(int i, float* out) const override { floats_.row(i, out); }
  int most_singly() const override { return floats_.most_singly(); }
  size_t bytes() const override {
    return floats_.bytes() + first_.bytes() + second_.bytes() + (one_ ? one_->bytes() : 0);
  }

 private:
  // False, and y as it was, where lanes do not fill registers or a value is not finite.
  template <bool Onto>
  bool multiply(const float* x, float* y, int lanes) const {
    if (lanes == 1) return one_ && one_->multiply<Onto>(x, y);
    if (lanes % kPairLanes != 0) return false;
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float* largest = arena.take<float>(static_cast<size_t>(lanes));
    if (!find_largest(x, lanes, largest)) return false;
    Pair* pairs = arena.take<Pair>(static_cast<size_t>(2 * second_.pairs) * first_.pairs * kPairLanes);
    Pair* middle = arena.take<Pair>(static_cast<size_t>(first_.rows) * second_.pairs * kPairLanes);
    for (int lane = 0; lane < lanes; lane += kPairLanes) {
      const __m512 most = _mm512_load_ps(largest + lane);
      to_pairs(x + lane, lanes, 32767.0f / most, pairs);
      multiply_first(pairs, middle);
      multiply_second<Onto>(middle, most * (1.0f / 32767.0f), y + lane, lanes);
    }
    return true;
  }

  // Of each lane; false if a value is not finite.
  bool find_largest(const float* x, int lanes, float* largest) const {
    for (int lane = 0; lane < lanes; lane += kPairLanes) {
      __m512i most = _mm512_setzero_si512();
      for (int j = 0; j < columns; ++j) most = larger_size(most, _mm512_loadu_ps(x + static_cast<size_t>(j) * lanes + lane));
      if (!all_finite(most)) return false;
      // Lanes that are there to fill a register are zeros; scales must not be denormal numbers, which are slow.
      const __mmask16 small = _mm512_cmp_ps_mask(_mm512_castsi512_ps(most), _mm512_set1_ps(1e-30f), _CMP_LT_OQ);
      _mm512_store_ps(largest + lane, _mm512_mask_mov_ps(_mm512_castsi512_ps(most), small, _mm512_set1_ps(1.0f)));
    }
    return true;
  }

  // pairs (second axis, pairs of the first axis, lanes) = factor · x, rounded. What is beside the last of an odd number does
  // not matter: it meets a factor's zero.
  void to_pairs(const float* x, int lanes, __m512 factor, Pair* pairs) const {
    const size_t inner = static_cast<size_t>(lanes) * (axis_ == 0 ? second_.columns : 1);
    const size_t outer = static_cast<size_t>(lanes) * (axis_ == 0 ? 1 : first_.columns);
    const int whole = first_.columns / 2;
    auto number = [&](const float* from) { return _mm512_cvtps_epi32(_mm512_loadu_ps(from) * factor); };
    auto put = [&](__m512i even, __m512i odd) {
      _mm512_store_si512(pairs, lower_upper(even, _mm512_slli_epi32(odd, 16)));
      pairs += kPairLanes;
    };
    for (int k = 0; k < second_.columns; ++k) {
      const float* from = x + k * outer;
      for (int p = 0; p < whole; ++p, from += 2 * inner) put(number(from), number(from + inner));
      if (whole < first_.pairs) put(number(from), _mm512_setzero_si512());
    }
  }

  // middle (rows of the first factor, pairs of the second axis, lanes) = upper halves of sums, rounded as these begin with
  // a half.
  void multiply_first(const Pair* pairs, Pair* middle) const {
    const size_t step = static_cast<size_t>(first_.pairs) * kPairLanes;
    const size_t row = static_cast<size_t>(second_.pairs) * kPairLanes;
    for (int k = 0; k < second_.pairs; ++k, pairs += 2 * step, middle += kPairLanes)
      first_.multiply(pairs, pairs + step, 1 << 15, [=](int i, __m512i even, __m512i odd) {
        _mm512_store_si512(middle + i * row, lower_upper(_mm512_srli_epi32(even, 16), odd));
      });
  }

  // y = or, `Onto` what is there, +=. Two rows of the first factor at a time; an odd last one is its own neighbour.
  template <bool Onto>
  void multiply_second(const Pair* middle, __m512 unit, float* y, int lanes) const {
    const size_t row = static_cast<size_t>(second_.pairs) * kPairLanes;
    const size_t along = static_cast<size_t>(lanes) * (axis_ == 0 ? second_.rows : 1);
    const size_t across = static_cast<size_t>(lanes) * (axis_ == 0 ? 1 : first_.rows);
    const float* scales = second_.scales();
    for (int i = 0; i < first_.rows; i += 2) {
      const int next = std::min(i + 1, first_.rows - 1);
      const __m512 a = unit * (65536.0f * first_.scales()[i]), b = unit * (65536.0f * first_.scales()[next]);
      float *to = y + i * along, *beside = y + next * along;
      second_.multiply(middle + i * row, middle + next * row, 0, [=](int r, __m512i left, __m512i right) {
        const __m512 scale = _mm512_set1_ps(scales[r]);
        __m512 u = _mm512_cvtepi32_ps(left) * (a * scale), v = _mm512_cvtepi32_ps(right) * (b * scale);
        if (Onto) u += _mm512_loadu_ps(to + r * across), v += _mm512_loadu_ps(beside + r * across);
        _mm512_storeu_ps(to + r * across, u);
        _mm512_storeu_ps(beside + r * across, v);
      });
    }
  }

  const Kronecker floats_;
  const size_t axis_;  // multiplied first
  const ShortFactor first_, second_;
  std::optional<KroneckerShortsOne> one_;
};

#endif

inline WeightPointer make_kronecker(int terms, std::vector<FactorShape> shapes, const float* const* factors, bool fast) {
#if defined(__AVX512VNNI__)
  if (fast && KroneckerShorts::fits(terms, shapes, factors)) return std::make_shared<KroneckerShorts>(shapes, factors);
#else
  (void)fast;
#endif
  return std::make_shared<Kronecker>(terms, std::move(shapes), factors);
}

}  // namespace dopant
