// A dense matrix in 8 bits, times activations in 8 bits (the fast mode).
//
// Sixteen rows lie together, four columns at a time: [row / 16][column / 4][row % 16][column % 4]. An instruction takes
// four columns of sixteen rows times four activations of a lane, broadcast, and its sums are sixteen outputs of the lane,
// as callers have them: nothing is added up across a register, and a batch needs no transposition.
//
// A block of 3 · 16 rows and 8 lanes takes 3 + 8 loads for 24 such instructions, so that the multipliers are the limit.
// All lanes take their turn with 48 rows, which stay in the near caches meanwhile: weights are read from afar once, and
// while the later lanes compute the next rows are fetched.
#pragma once

#include "bytes.hpp"
#include "dense.hpp"
#include "dense_shorts.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

class DenseBytes final : public Weight {
 public:
  DenseBytes(int rows, int columns, const int8_t* values, const float* scales)
      : Weight(rows, columns),
        groups_((columns + 3) / 4),
        values_(static_cast<size_t>(rows) * groups_ * 4),
        scales_(scales, scales + rows),
        offsets_(static_cast<size_t>(rows)) {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) {
        const int8_t value = values[static_cast<size_t>(i) * columns + j];
        values_[place(i, j)] = value;
        offsets_[i] -= kByteZero * value;
      }
  }

  bool gains_by_lanes() const override { return true; }

  void linear(const float* bias, const float* x, int batch, float* y) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const Bytes u = bytes_of(x, batch, arena);
    if (u.scales == nullptr) return Weight::linear(bias, x, batch, y);
    each_rows([&](int row, auto tiles) { multiply<tiles>(row, u, batch, bias, y + row, static_cast<size_t>(rows)); });
  }

  // Lanes are turned into items of a batch, and the product of a block of rows, while it is near, into lanes.
  void apply(const float* x, float* y, int lanes) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float* turned = lanes == 1 ? nullptr : arena.take<float>(static_cast<size_t>(columns) * lanes);
    if (lanes > 1) from_lanes(x, lanes, columns, lanes, turned, static_cast<size_t>(columns));
    const Bytes u = bytes_of(lanes == 1 ? x : turned, lanes, arena);
    if (u.scales == nullptr) return apply_floats(x, y, lanes, arena);
    if (lanes == 1) return each_rows([&](int row, auto tiles) { multiply<tiles>(row, u, 1, y, y + row, 0); });
    each_rows([&](int row, auto tiles) {
      Arena& own = Arena::of_this_thread();
      Arena::Scope part(own);
      float* product = own.take<float>(static_cast<size_t>(kTiles * kTile) * lanes);
      float* sums = own.take<float>(static_cast<size_t>(kTiles * kTile) * lanes);
      const int count = std::min(tiles * kTile, rows - row);
      multiply<tiles>(row, u, lanes, nullptr, product, static_cast<size_t>(count));
      to_lanes(product, lanes, count, sums, lanes);
      float* to = y + static_cast<size_t>(row) * lanes;
      for (int i = 0; i < count * lanes; ++i) to[i] += sums[i];
    });
  }

  bool shares_rows() const override { return true; }

  void row(int i, float* out) const override {
    for (int j = 0; j < columns; ++j) out[j] += scales_[i] * values_[place(i, j)];
  }

  size_t bytes() const override { return values_.size() + (scales_.size() + offsets_.size()) * 4; }

 private:
  static constexpr int kTile = 16, kTiles = 3, kLanes = 8;  // rows a register, registers and lanes a block

  // The last tile may have fewer rows.
  int height(int row) const { return std::min(kTile, rows - row / kTile * kTile); }
  size_t place(int i, int j) const {
    const size_t tile = static_cast<size_t>(i / kTile * kTile) * groups_ * 4;
    return tile + (static_cast<size_t>(j / 4) * height(i) + i % kTile) * 4 + j % 4;
  }

  // Lanes of activations as bytes, `stride` apart, and their scales; null if a value is not finite.
  struct Bytes {
    const uint8_t* values;
    const float* scales;
    size_t stride;
  };
  Bytes bytes_of(const float* x, int lanes, Arena& arena) const {
    const size_t stride = (static_cast<size_t>(columns) + 63) / 64 * 64;
    uint8_t* bytes = arena.take<uint8_t>(stride * lanes);
    float* scales = arena.take<float>(static_cast<size_t>(lanes));
    const int32_t edges[] = {0, columns};
    const Strips strip{edges, 1, static_cast<int>(stride)};
    for (int lane = 0; lane < lanes; ++lane) {
      uint8_t* const values = bytes + lane * stride;
      const Digits digits = Digits::one(x + static_cast<size_t>(lane) * columns, strip, &values);
      if (digits.count == 0) return {bytes, nullptr, stride};
      scales[lane] = digits.scale;
    }
    return {bytes, scales, stride};
  }

  // Calls do(row, tiles) for all rows, in blocks of whole tiles and, in the end, one tile at a time; among threads.
  template <class Do>
  void each_rows(Do todo) const {
    share_rows(rows, kTiles * kTile, values_.size(), [&](int row, int end) {
      for (; row + kTiles * kTile <= end; row += kTiles * kTile) todo(row, std::integral_constant<int, kTiles>{});
      for (; row < end; row += kTile) todo(row, std::integral_constant<int, 1>{});
    });
  }

  // to (lanes, rows of R tiles) = the product + onto (rows), which may be null. The lanes are shared out evenly.
  template <int R>
  void multiply(int row, const Bytes& u, int lanes, const float* onto, float* to, size_t stride) const {
    const int passes = (lanes + kLanes - 1) / kLanes, share = (lanes + passes - 1) / passes;
    for (int pass = 0, lane = 0; lane < lanes; ++pass, lane += share) {
      const int ahead = pass == 0 ? 0 : R - 1 + std::min(pass, R);
      block<R, kLanes>(row, u, lane, std::min(share, lanes - lane), onto, to + lane * stride, stride, ahead);
    }
  }

  // `lanes` of them, L at most, from `lane` on; the tile `ahead` of this row's is fetched.
  template <int R, int L>
  void block(int row, const Bytes& u, int lane, int lanes, const float* onto, float* to, size_t stride, int ahead) const {
    if constexpr (L > 1)
      if (lanes < L) return block<R, L - 1>(row, u, lane, lanes, onto, to, stride, ahead);
    const uint8_t* x = u.values + lane * u.stride;
    const float* x_scales = u.scales + lane;
    const size_t x_stride = u.stride;
    const int count = R > 1 ? kTile : height(row);
    const __mmask16 mask = R > 1 ? 0xffff : (__mmask16)((1u << count) - 1u);
    const int8_t* from = values_.data() + static_cast<size_t>(row) * groups_ * 4;
    const size_t tile = static_cast<size_t>(groups_) * 64;
    __m512i sums[R][L];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) sums[r][l] = _mm512_maskz_loadu_epi32(mask, offsets_.data() + row + r * kTile);
    for (int g = 0; g < groups_; ++g, from += 4 * count) {
      _mm_prefetch(reinterpret_cast<const char*>(from + ahead * tile), _MM_HINT_T0);
      __m512i weights[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) weights[r] = _mm512_maskz_loadu_epi32(mask, from + r * tile);
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) {
        int32_t four;
        std::memcpy(&four, x + l * x_stride + 4 * g, 4);
        const __m512i factors = _mm512_set1_epi32(four);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          sums[r][l] = _mm512_dpbusd_epi32(sums[r][l], factors, weights[r]);
          asm("" : "+v"(sums[r][l]));  // else the compiler keeps sums in memory
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const int at = row + r * kTile;
      const __m512 scale = _mm512_maskz_loadu_ps(mask, scales_.data() + at);
      const __m512 start = onto == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, onto + at);
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) {
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x_scales[l]));
        const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][l]), both, start);
        _mm512_mask_storeu_ps(to + l * stride + r * kTile, mask, y);
      }
    }
  }

  // For activations that are not finite: rows widened, with their scales, into scratch, and a GEMM.
  void apply_floats(const float* x, float* y, int lanes, Arena& arena) const {
    float* scratch = arena.take<float>(static_cast<size_t>(kTile) * columns);
    for (int first = 0; first < rows; first += kTile) {
      const int count = height(first);
      std::memset(scratch, 0, sizeof(float) * static_cast<size_t>(count) * columns);
      for (int r = 0; r < count; ++r) row(first + r, scratch + static_cast<size_t>(r) * columns);
      gemm({scratch, columns}, {x, lanes}, y + static_cast<size_t>(first) * lanes, lanes, true, count, columns, lanes);
    }
  }

  const int groups_;  // of four columns
  AlignedVector<int8_t> values_;
  std::vector<float> scales_;
  std::vector<int32_t> offsets_;  // -128 · a row's sum
};

#endif

inline WeightPointer make_dense_int8(int rows, int columns, const int8_t* values, const float* scales,
                                     [[maybe_unused]] bool fast) {
#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
  if (fast && columns <= kMostByteColumns) return std::make_shared<DenseBytes>(rows, columns, values, scales);
#elif defined(__AVX2__) && !defined(__AVX512F__)
  if (fast && columns <= DenseShorts::kMostColumns) return std::make_shared<DenseShorts>(rows, columns, values, scales);
#endif
  return std::make_shared<Dense<int8_t>>(rows, columns, values, scales);
}

}  // namespace dopant
