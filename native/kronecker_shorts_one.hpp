// W = B ⊗ C in 16-bit numbers, for one lane (the fast mode): y = B X Cᵀ with x as a matrix X, as many rows as B has
// columns.
//
// X is scaled to whole numbers (shorts.hpp), and the upper halves of the first sums, U = X Cᵀ, are whole numbers again.
// The lanes of a register are rows of C. The dot instruction multiplies pairs: of neighbours in a row of X by
// those in rows of C, then of neighbours in a row of B by two rows of U, whose upper halves lie in one register.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "arena.hpp"
#include "shorts.hpp"

namespace dopant {

#if defined(__AVX512VNNI__)

class KroneckerShortsOne {
 public:
  KroneckerShortsOne(int m1, int n1, const float* b, int m2, int n2, const float* c)
      : m1_(m1), n1_(n1), m2_(m2), n2_(n2), lanes_((m2 + kPairLanes - 1) / kPairLanes * kPairLanes),
        left_(static_cast<size_t>(m1) * pairs_of(n1)),
        right_(static_cast<size_t>(pairs_of(n2)) * lanes_),
        left_scales_(static_cast<size_t>(m1)),
        right_scales_(static_cast<size_t>(lanes_)) {
    for (int i = 0; i < m1; ++i, b += n1)
      left_scales_[i] = pack(b, n1, left_.data() + static_cast<size_t>(i) * pairs_of(n1), 1);
    for (int i = 0; i < m2; ++i, c += n2) right_scales_[i] = pack(c, n2, right_.data() + i, lanes_);
  }

  size_t bytes() const {
    return (left_.size() + right_.size()) * sizeof(Pair) + (left_scales_.size() + right_scales_.size()) * sizeof(float);
  }

  // Whether the dot instructions are clearly fewer than the float kernel's multiply-accumulates, which may multiply in
  // the other order and fill its registers better.
  static bool pays(int m1, int n1, int m2, int n2) {
    const auto product = [](int a, int b, int c) { return static_cast<double>(a) * b * c; };
    const double floats = std::min(product(n1, n2, m2) + product(n1, m1, m2), product(m1, n1, n2) + product(m1, n2, m2));
    const int registers = (m2 + kPairLanes - 1) / kPairLanes;
    const double dots = product(registers, n1, pairs_of(n2)) + product(registers, m1, pairs_of(n1));
    return dots <= 0.8 * floats / kPairLanes;
  }

  // y = or, `Onto` what is there, += W x. False, and y as it was, where a value is not finite.
  template <bool Onto>
  bool multiply(const float* x, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float most = largest_size(x, n1_ * n2_);
    if (!std::isfinite(most)) return false;
    if (most < 1e-30f) most = 1.0f;  // scales must not be denormal numbers, which are slow

    const int first = pairs_of(n2_), second = pairs_of(n1_);
    Pair* in = arena.take<Pair>(static_cast<size_t>(n1_) * first);
    to_shorts(x, 32767.0f / most, in);
    Pair* middle = arena.take<Pair>(static_cast<size_t>(second) * lanes_);
    for (int lane = 0; lane < lanes_;) {
      lane += each_vectors(lane, [&](auto vectors) {
        constexpr int V = vectors, R = rows_of(V);
        const auto keep = [&](int row, const auto& sums) __attribute__((always_inline)) {
          keep_pairs(sums, middle + static_cast<size_t>(row) / 2 * lanes_ + lane);
        };
        const auto put = [&](int row, const auto& sums) __attribute__((always_inline)) {
          put_rows<Onto>(sums, most / 32767.0f, row, lane, y);
        };
        each_rows<R / 2 * 2, V>(n1_, in, right_.data() + lane, first, 1 << 15, keep);
        each_rows<R, V>(m1_, left_.data(), middle + lane, second, 0, put);
      });
    }
    return true;
  }

 private:
  static int pairs_of(int columns) { return (columns + 1) / 2; }

  // A row in pairs that are `stride` apart; returns its scale.
  static float pack(const float* row, int columns, Pair* to, int stride) {
    const double scale = short_scale(row, columns);
    for (int j = 0; j < columns; ++j) {
      const auto number = static_cast<uint32_t>(static_cast<uint16_t>(std::lrint(row[j] / scale)));
      to[static_cast<size_t>(j / 2) * stride] |= static_cast<Pair>(number << (j % 2 * 16));
    }
    return static_cast<float>(scale);
  }

  // X as whole numbers, row by row; beside the last of an odd number lies what does not matter: it meets a zero of C.
  void to_shorts(const float* x, float factor, Pair* to) const {
    const int rows = n2_ % 2 == 0 ? 1 : n1_, columns = n1_ * n2_ / rows;
    for (int r = 0; r < rows; ++r, x += columns, to += pairs_of(columns))
      for (int j = 0; j < columns; j += 16) {
        const __m512 value = _mm512_maskz_loadu_ps(lanes_left(columns - j), x + j);
        const __m512i number = _mm512_cvtps_epi32(value * _mm512_set1_ps(factor));
        const __mmask16 there = lanes_left(columns % 2 + columns - j);
        _mm256_mask_storeu_epi16(reinterpret_cast<int16_t*>(to) + j, there, _mm512_cvtepi32_epi16(number));
      }
  }

  // Of V registers side by side; with their pairs and a factor's they must fit 32.
  static constexpr int kMostVectors = 5;
  static constexpr int rows_of(int vectors) { return vectors == 1 ? 12 : 25 / vectors; }

  // Calls do(V) for as many registers from a lane on as are shared out evenly; returns their lanes.
  template <class Do>
  int each_vectors(int lane, Do todo) const {
    const int left = (lanes_ - lane) / kPairLanes, parts = (left + kMostVectors - 1) / kMostVectors;
    const int vectors = (left + parts - 1) / parts;
    switch (vectors) {
      case 1: todo(std::integral_constant<int, 1>()); break;
      case 2: todo(std::integral_constant<int, 2>()); break;
      case 3: todo(std::integral_constant<int, 3>()); break;
      case 4: todo(std::integral_constant<int, 4>()); break;
      default: todo(std::integral_constant<int, 5>());
    }
    return vectors * kPairLanes;
  }

  // Rows of U in pairs: the upper halves of sums, rounded as these begin with a half. An odd last row has no neighbour.
  template <int R, int V>
  __attribute__((always_inline)) void keep_pairs(const __m512i (&sums)[R][V], Pair* to) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; r += 2, to += lanes_)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const __m512i odd = r + 1 < R ? sums[r + 1][v] : _mm512_setzero_si512();
        _mm512_store_si512(to + v * kPairLanes, lower_upper(_mm512_srli_epi32(sums[r][v], 16), odd));
      }
  }

  // Rows of y, from a row and a lane on; `unit`: the scale of X.
  template <bool Onto, int R, int V>
  __attribute__((always_inline)) void put_rows(const __m512i (&sums)[R][V], float unit, int row, int lane, float* y) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_set1_ps(unit * (65536.0f * left_scales_[row + r]));
      float* to = y + static_cast<size_t>(row + r) * m2_ + lane;
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const int from = v * kPairLanes;
        const __mmask16 there = lanes_left(m2_ - lane - from);
        __m512 sum = _mm512_cvtepi32_ps(sums[r][v]) * (scale * _mm512_load_ps(right_scales_.data() + lane + from));
        if (Onto) sum += _mm512_maskz_loadu_ps(there, to + from);
        _mm512_mask_storeu_ps(to + from, there, sum);
      }
    }
  }

  // out(row, sums) for `rows` rows, R at a time and in the end fewer: sums[r][v] of the products of a (rows, pairs) with
  // b (pairs, lanes_), V registers of its lanes, added to `start`.
  template <int R, int V, class Out>
  void each_rows(int rows, const Pair* a, const Pair* b, int pairs, int start, const Out& out) const {
    for (int row = 0; row < rows; row += R)
      tile<R, V>(std::min(R, rows - row), row, a + static_cast<size_t>(row) * pairs, b, pairs, start, out);
  }

  // Of `count` rows, R at most.
  template <int R, int V, class Out>
  void tile(int count, int row, const Pair* a, const Pair* b, int pairs, int start, const Out& out) const {
    if constexpr (R > 1)
      if (count < R) return tile<R - 1, V>(count, row, a, b, pairs, start, out);
    __m512i sums[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][v] = _mm512_set1_epi32(start);
    for (int p = 0; p < pairs; ++p, b += lanes_) {
      __m512i right[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) right[v] = _mm512_load_si512(b + v * kPairLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512i left = _mm512_set1_epi32(a[static_cast<size_t>(r) * pairs + p]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          sums[r][v] = _mm512_dpwssd_epi32(sums[r][v], right[v], left);
          asm("" : "+v"(sums[r][v]));  // else the compiler keeps sums in memory
        }
      }
    }
    out(row, sums);
  }

  const int m1_, n1_, m2_, n2_, lanes_;  // rows of C, whole registers
  AlignedVector<Pair> left_, right_;     // B (rows, pairs) and C (pairs, lanes)
  AlignedVector<float> left_scales_, right_scales_;
};

#endif

}  // namespace dopant
