// A dense matrix, kept row by row in float32, or in 8 bits with a scale a row (as files keep it).
#pragma once

#include <algorithm>
#include <vector>

#include "gemm.hpp"
#include "threads.hpp"
#include "weight.hpp"

namespace dopant {

// do(row, end) of parts of a matrix's rows, among threads if it is large; parts begin at multiples of `block`.
template <class Do>
inline void share_rows(int rows, int block, size_t bytes, Do todo) {
  const int blocks = (rows + block - 1) / block, parts = std::min(Threads::parts(bytes), blocks);
  if (parts <= 1) return todo(0, rows);
  Threads::run(parts, [&](int part) {
    const auto begin = [&](int64_t which) { return std::min(rows, static_cast<int>(blocks * which / parts) * block); };
    todo(begin(part), begin(part + 1));
  });
}

template <class T>
class Dense final : public Weight {
 public:
  // scales: one a row for int8 values, null for float32.
  Dense(int rows, int columns, const T* values, const float* scales)
      : Weight(rows, columns),
        values_(values, values + static_cast<size_t>(rows) * columns),
        scales_(scales, scales == nullptr ? scales : scales + rows) {
    values_.resize(values_.size() + 64);  // kernels read whole registers
  }

  bool gains_by_lanes() const override { return true; }

  // Few items: dot products, of blocks of rows with all of them. Many: a GEMM, whose sums need no adding up.
  void linear(const float* bias, const float* x, int batch, float* y) const override {
    if (batch > kItems) return Weight::linear(bias, x, batch, y);
    share(kRows, [&](int row, int end) {
      for (; row + kRows <= end; row += kRows) dot<kRows, kItems>(row, bias, x, batch, y);
      for (; row < end; ++row) dot<1, kItems>(row, bias, x, batch, y);
    });
  }

  void apply(const float* x, float* y, int lanes) const override {
    lanes == 1 ? linear(y, x, 1, y) : apply_many(x, y, lanes);
  }

  bool shares_rows() const override { return true; }

  void row(int i, float* out) const override {
    const T* from = values_of(i);
    const float scale = scale_of(i);
    for (int j = 0; j < columns; ++j) out[j] += scale * from[j];
  }

  size_t bytes() const override { return values_.size() * sizeof(T) + scales_.size() * 4; }

  // Whole registers may be read.
  const T* values_of(int row) const { return values_.data() + static_cast<size_t>(row) * columns; }
  float scale_of(int row) const { return kInt8 ? scales_[row] : 1.0f; }

 private:
  static constexpr bool kInt8 = sizeof(T) == 1;
  static constexpr int kRows = 3, kItems = W == 16 ? 8 : 4;  // of a block: its sums stay in registers
  static constexpr int kTile = 32;                         // rows of a GEMM

  template <class Do>
  void share(int block, Do todo) const {
    share_rows(rows, block, static_cast<size_t>(rows) * columns * sizeof(T), todo);
  }

  // R rows with `items`, L at most: for R · L multiply-accumulates R registers are widened and L loaded.
  template <int R, int L>
  void dot(int row, const float* bias, const float* x, int items, float* y) const {
    if constexpr (L > 1)
      if (items < L) return dot<R, L - 1>(row, bias, x, items, y);
    constexpr int chains = L == 1 ? 2 : 1;  // sums that do not wait for each other
    const T* from = values_of(row);
    Vec<W> sums[chains][R][L] = {};
    const auto step = [&](int j, int chain, auto weight, auto activation) {
      Vec<W> weights[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) weights[r] = weight(from + static_cast<size_t>(r) * columns + j);
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) {
        Vec<W> factor = activation(x + static_cast<size_t>(l) * columns + j);
#if defined(__AVX512F__)
        asm("" : "+v"(factor));  // else it is loaded again for each row
#endif
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[chain][r][l] += weights[r] * factor;
      }
    };
    const auto whole = [](const auto* p) { return widen<W>(p); };
    int j = 0;
    for (; j + chains * W <= columns; j += chains * W)
#pragma GCC unroll 2
      for (int chain = 0; chain < chains; ++chain) step(j + chain * W, chain, whole, whole);
    for (; j < columns; j += W) {
      const auto first = [left = std::min(W, columns - j)](const auto* p) { return widen_first(p, left); };
      step(j, 0, first, first);
    }
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Vec<W> total = chains == 1 ? sums[0][r][l] : sums[0][r][l] + sums[chains - 1][r][l];
        const float start = bias == nullptr ? 0.0f : bias[row + r];
        y[static_cast<size_t>(l) * rows + row + r] = start + scale_of(row + r) * sum<W>(total);
      }
  }

  // A row times its scale, in whole registers.
  void widen_row(int row, float* to) const {
    const T* from = values_of(row);
    const Vec<W> scale = all<W>(scale_of(row));
    for (int j = 0; j < columns; j += W) store<W>(to + j, scale * widen<W>(from + j));
  }

  // Rows in tiles of a GEMM; 8-bit rows are widened, with their scales, into scratch first.
  void apply_many(const float* x, float* y, int lanes) const {
    share(kTile, [&](int row, int end) {
      for (; row < end; row += kTile) apply_tile(row, std::min(kTile, end - row), x, y, lanes);
    });
  }
  void apply_tile(int row, int count, const float* x, float* y, int lanes) const {
    const T* from = values_of(row);
    Matrix a{reinterpret_cast<const float*>(from), columns};
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    if (kInt8) {
      float* scratch = arena.take<float>(static_cast<size_t>(count) * columns + W);  // the last row in whole registers
      for (int r = 0; r < count; ++r) widen_row(row + r, scratch + static_cast<size_t>(r) * columns);
      a = {scratch, columns};
    }
    gemm(a, {x, lanes}, y + static_cast<size_t>(row) * lanes, lanes, true, count, columns, lanes);
  }

  std::vector<T> values_;
  std::vector<float> scales_;
};

}  // namespace dopant
