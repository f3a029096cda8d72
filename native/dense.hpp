// A dense matrix, kept row by row in float32, or in 8 bits with a scale a row (as files keep it).
#pragma once

#include <algorithm>
#include <vector>

#include "bytes.hpp"
#include "gemm.hpp"
#include "weight.hpp"

namespace dopant {

template <class T>
class Dense final : public Weight {
 public:
  // scales: one a row for int8 values, null for float32.
  Dense(int rows, int columns, const T* values, const float* scales, bool fast)
      : Weight(rows, columns),
        values_(values, values + static_cast<size_t>(rows) * columns),
        scales_(scales, scales == nullptr ? scales : scales + rows),
        fast_(fast) {
    values_.resize(values_.size() + 64);  // kernels read whole registers
    if constexpr (kInt8)
      if (takes_bytes()) sums_ = row_sums(values_.data(), rows, columns);
  }

  void apply(const float* x, float* y, int lanes) const override {
    if (takes_bytes() && apply_bytes(x, y, lanes)) return;
    lanes == 1 ? apply_one(x, y) : apply_many(x, y, lanes);
  }

  void row(int i, float* out) const override {
    const T* from = values_.data() + static_cast<size_t>(i) * columns;
    const float scale = scale_of(i);
    for (int j = 0; j < columns; ++j) out[j] += scale * from[j];
  }

  size_t bytes() const override { return values_.size() * sizeof(T) + (scales_.size() + sums_.size()) * 4; }

 private:
  static constexpr bool kInt8 = sizeof(T) == 1;
  static constexpr int kRows = 4;  // rows at a time share the loads of x

  float scale_of(int row) const { return kInt8 ? scales_[row] : 1.0f; }
  bool takes_bytes() const { return kInt8 && fast_ && kBytes && columns <= kMostByteColumns; }

  void apply_one(const float* x, float* y) const {
    int row = 0;
    for (; row + kRows <= rows; row += kRows) dot<kRows>(row, x, y);
    for (; row < rows; ++row) dot<1>(row, x, y);
  }

  template <int R>
  void dot(int row, const float* x, float* y) const {
    const T* from = values_.data() + static_cast<size_t>(row) * columns;
    Vec<W> sums[R][2] = {};
    int j = 0;
    for (; j + 2 * W <= columns; j += 2 * W)
      for (int half = 0; half < 2; ++half)
        for (int r = 0; r < R; ++r)
          sums[r][half] += widen<W>(from + static_cast<size_t>(r) * columns + j + half * W) * load<W>(x + j + half * W);
    for (int r = 0; r < R; ++r) {
      float total = sum<W>(sums[r][0] + sums[r][1]);
      for (int k = j; k < columns; ++k) total += from[static_cast<size_t>(r) * columns + k] * x[k];
      y[row + r] += scale_of(row + r) * total;
    }
  }

  // Rows in tiles of a GEMM; 8-bit rows are widened, with their scales, into scratch first.
  void apply_many(const float* x, float* y, int lanes) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    constexpr int tile = 32;
    float* scratch = kInt8 ? arena.take<float>(static_cast<size_t>(tile) * columns) : nullptr;
    for (int row = 0; row < rows; row += tile) {
      const int count = std::min(tile, rows - row);
      const T* from = values_.data() + static_cast<size_t>(row) * columns;
      Matrix a{reinterpret_cast<const float*>(from), columns};
      if (kInt8) {
        for (int r = 0; r < count; ++r)
          for (int j = 0; j < columns; ++j)
            scratch[static_cast<size_t>(r) * columns + j] =
                scale_of(row + r) * from[static_cast<size_t>(r) * columns + j];
        a = {scratch, columns};
      }
      gemm(a, {x, lanes}, y + static_cast<size_t>(row) * lanes, lanes, true, count, columns, lanes);
    }
  }

  // 8-bit activations too; false where they cannot be (a value that is not finite).
  bool apply_bytes(const float* x, float* y, int lanes) const {
    if constexpr (kInt8) return dense_bytes(values_.data(), scales_.data(), sums_.data(), rows, columns, x, y, lanes);
    return false;
  }

  std::vector<T> values_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  bool fast_;
};

}  // namespace dopant
