// A sparse weight: which form it is kept in, and for what.
//
// 8-bit values (of up to 65536 columns) lie in one form for any number of lanes: where the processor has the permutes and
// dot instructions for them in banks, or else in panels of bytes; below AVX-512 in slices with gaps. Other values, and
// AVX-512 without those instructions: one lane takes panels of floats or slices, which hold everything; more lanes take
// rows, in tiles for so many lanes, that are made of it when they are first needed.
#pragma once

#include <atomic>
#include <mutex>
#include <variant>
#include <vector>

#include "sparse_banks.hpp"
#include "sparse_gaps.hpp"
#include "sparse_panels.hpp"
#include "sparse_rows_short.hpp"
#include "weight.hpp"

namespace dopant {

template <class T, class Index>
class Sparse final : public Weight {
 public:
  // Columns rise within a row.
  Sparse(int rows, int columns, const int64_t* starts, const int32_t* column_of, const T* values, const float* scales,
         bool fast)
      : Weight(rows, columns),
        fast_(fast && sizeof(T) == 1),
        scales_(scales, scales == nullptr ? scales : scales + rows) {
    std::vector<Entry<T, Index>> entries;
    for (int r = 0; r < rows; ++r)
      for (int64_t i = starts[r]; i < starts[r + 1]; ++i)
        entries.push_back({r, static_cast<Index>(column_of[i]), values[i]});
    if constexpr (kPanelsOfBytes) {
      if (columns <= kMostByteColumns) {
        if (auto banks = SparseBanks<T, Index>::from(entries, rows, columns, !fast_)) {
          one_ = std::move(*banks);
          return;
        }
        one_ = SparsePanels<T, Index, true>::from(entries, rows, columns, !fast_);
        return;
      }
    }
    if constexpr (kPanels)
      one_ = SparsePanels<T, Index, false>::from(entries, rows, columns, true);
    else if constexpr (kGaps)
      one_ = SparseGaps::from(entries);
    else
      one_ = SparseSlices<T, Index>::from(entries);
  }

  void apply(const float* x, float* y, int lanes) const override {
    const float* scales = scales_.empty() ? nullptr : scales_.data();
    if (lanes > 1) return apply_rows(scales, x, y, lanes);
    const bool done = std::visit([&](const auto& one) { return one.apply(scales, x, y); }, one_);
    if (!done) each([&](int row, Index column, T value) { y[row] += scale_of(row) * value * x[column]; });
  }

  int most_singly() const override {
    return std::visit([](const auto& one) { return one.most_singly(); }, one_);
  }

  bool gains_by_lanes() const override { return !kPanels; }

  // Slow: a weight that is there to be looked up is a SparseLookup.
  void row(int i, float* out) const override {
    each([&](int row, Index column, T value) {
      if (row == i) out[column] += scale_of(row) * value;
    });
  }

  WeightPointer columns_of(int first, int count) const override {
    const std::vector<Entry<T, Index>> all = entries();
    std::vector<int64_t> starts(static_cast<size_t>(rows) + 1);
    std::vector<int32_t> column_of;
    std::vector<T> values;
    for (const auto& entry : all)
      if (static_cast<int>(entry.column) >= first && static_cast<int>(entry.column) < first + count) {
        ++starts[static_cast<size_t>(entry.row) + 1];
        column_of.push_back(static_cast<int32_t>(entry.column) - first);
        values.push_back(entry.value);
      }
    for (int r = 0; r < rows; ++r) starts[r + 1] += starts[r];
    const float* scales = scales_.empty() ? nullptr : scales_.data();
    return std::make_shared<Sparse>(rows, count, starts.data(), column_of.data(), values.data(), scales, fast_);
  }

  size_t bytes() const override {
    const size_t made = for_8_.bytes + for_16_.bytes + for_32_.bytes + shorts_.bytes;
    return scales_.size() * 4 + made + std::visit([](const auto& one) { return one.bytes(); }, one_);
  }

 private:
  static constexpr bool kGaps = !kPanels && sizeof(T) == 1 && sizeof(Index) == 2;
  static constexpr bool kPanelsOfBytes = kPanels && kBytes && sizeof(T) == 1;
  using OneLane = std::conditional_t<
      kGaps, std::variant<SparseGaps>,
      std::conditional_t<!kPanels, std::variant<SparseSlices<T, Index>>,
                         std::conditional_t<kPanelsOfBytes,
                                            std::variant<SparsePanels<T, Index, false>, SparsePanels<T, Index, true>,
                                                         SparseBanks<T, Index>>,
                                            std::variant<SparsePanels<T, Index, false>>>>>;

  float scale_of(int row) const { return scales_.empty() ? 1.0f : scales_[row]; }

  template <class F>
  void each(F f) const {
    std::visit([&](const auto& one) { one.each(f); }, one_);
  }
  // Those that are not zero, in the order of rows and of columns within a row.
  std::vector<Entry<T, Index>> entries() const {
    std::vector<Entry<T, Index>> all;
    each([&](int row, Index column, T value) { all.push_back({row, column, value}); });
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.row != b.row ? a.row < b.row : a.column < b.column; });
    return all;
  }

  void apply_rows(const float* scales, const float* x, float* y, int lanes) const {
    if constexpr (kGaps) return std::get<SparseGaps>(one_).apply_lanes(scales, x, y, lanes);
    if constexpr (kPanelsOfBytes) {
      if (const auto* banks = std::get_if<SparseBanks<T, Index>>(&one_)) return banks->apply_lanes(scales, x, y, lanes);
      if (const auto* panels = std::get_if<SparsePanels<T, Index, true>>(&one_)) return panels->apply_lanes(scales, x, y, lanes);
    }
    Arena& arena = Arena::of_this_thread();
    int lane = 0;
    if constexpr (kShorts && sizeof(T) == 1)  // in fast those that fill registers, up to the first that are not finite
      while (fast_ && lane + 2 * W <= lanes &&
             apply_short(made(shorts_, 2 * W * sizeof(int16_t)), scales, x + lane, y + lane, lanes, arena))
        lane += 2 * W;
    if (lane == lanes) return;
    auto apply = [&](auto& form, int together) {
      made(form, static_cast<size_t>(together) * sizeof(float)).apply(x + lane, y + lane, lanes - lane, lanes, arena);
    };
    const int together = std::min(lanes, 2 * W);
    if (together <= 8)
      apply(for_8_, 8);
    else if (together <= 16)
      apply(for_16_, 16);
    else
      apply(for_32_, 32);
  }

  template <class V>
  struct Made {
    SparseRows<V> rows;
    std::once_flag once;
    std::atomic<size_t> bytes{0};
  };

  template <class V>
  const SparseRows<V>& made(Made<V>& form, size_t column_bytes) const {
    std::call_once(form.once, [&] {
      const float* scales = scales_.empty() ? nullptr : scales_.data();
      form.rows = SparseRows<V>::from(entries(), scales, rows, columns, static_cast<int>(column_bytes));
      form.bytes = form.rows.bytes();
    });
    return form.rows;
  }

  const bool fast_;
  const std::vector<float> scales_;
  OneLane one_;
  mutable Made<float> for_8_, for_16_, for_32_;
  mutable Made<Shifted> shorts_;
};

// A sparse matrix whose rows are looked up (an embedding).
template <class T, class Index>
class SparseLookup final : public Weight {
 public:
  SparseLookup(int rows, int columns, const int64_t* starts, const int32_t* column_of, const T* values,
               const float* scales)
      : Weight(rows, columns),
        starts_(starts, starts + rows + 1),  // as many entries as 32 bits count
        columns_(column_of, column_of + starts[rows]),
        values_(values, values + starts[rows]),
        scales_(scales, scales == nullptr ? scales : scales + rows) {}

  void apply(const float* x, float* y, int lanes) const override {
    for (int r = 0; r < rows; ++r)
      for (size_t i = starts_[r]; i < starts_[r + 1]; ++i)
        for (int lane = 0; lane < lanes; ++lane)
          y[static_cast<size_t>(r) * lanes + lane] +=
              scale_of(r) * values_[i] * x[static_cast<size_t>(columns_[i]) * lanes + lane];
  }
  void row(int r, float* out) const override {
    for (size_t i = starts_[r]; i < starts_[r + 1]; ++i) out[columns_[i]] += scale_of(r) * values_[i];
  }
  size_t bytes() const override {
    return starts_.size() * 4 + columns_.size() * sizeof(Index) + values_.size() * sizeof(T) + scales_.size() * 4;
  }

 private:
  float scale_of(int row) const { return scales_.empty() ? 1.0f : scales_[row]; }

  std::vector<uint32_t> starts_;
  std::vector<Index> columns_;
  std::vector<T> values_;
  std::vector<float> scales_;
};

}  // namespace dopant
