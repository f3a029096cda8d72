// A sparse weight: which form it is kept in, and for what.
//
// One lane takes panels where the processor has the permutes for them, else slices; more lanes take rows. The form for
// one lane is made at once and holds everything; rows are made of it when they are first needed. The two halves of an
// LSTM's [x; h] are kept apart for when either is multiplied alone; for both together there are rows of the whole.
#pragma once

#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "sparse_panels.hpp"
#include "sparse_rows_bytes.hpp"
#include "weight.hpp"

namespace dopant {

// Rows that are made when they are first needed.
template <class T, class Index>
class LazyRows {
 public:
  // entries(add): calls add(row, column, value) for each.
  template <class Entries>
  void apply(int width, bool bytes, const float* scales, const float* x, float* y, int lanes, Entries entries) const {
    std::call_once(made_, [&] {
      std::vector<Entry<T, Index>> all;
      entries([&](int row, Index column, T value) { all.push_back({row, column, value}); });
      std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return a.row != b.row ? a.row < b.row : a.column < b.column;
      });
      rows_ = SparseRows<T, Index>::from(all, width);
    });
    Arena& arena = Arena::of_this_thread();
    if (!bytes || !apply_bytes(rows_, scales, x, y, lanes, arena)) rows_.apply(scales, x, y, lanes, arena);
  }
  size_t bytes() const { return rows_.bytes(); }

 private:
  mutable SparseRows<T, Index> rows_;
  mutable std::once_flag made_;
};

template <class T, class Index>
class SparsePart {
  using Entries = std::vector<Entry<T, Index>>;

 public:
  SparsePart(const Entries& entries, int rows, int columns, bool fast)
      : columns_(columns), bytes_(fast && kBytes && sizeof(T) == 1) {
    if constexpr (kPanels && kBytes && sizeof(T) == 1) {
      if (bytes_) {
        one_ = SparsePanels<T, Index, true>::from(entries, rows, columns);
        return;
      }
    }
    if constexpr (kPanels)
      one_ = SparsePanels<T, Index, false>::from(entries, rows, columns);
    else
      one_ = SparseSlices<T, Index>::from(entries);
  }

  void apply(const float* scales, const float* x, float* y, int lanes) const {
    if (lanes > 1)
      return rows_.apply(columns_, bytes_, scales, x, y, lanes, [this](auto add) { each(add); });
    const bool done = std::visit(
        [&](const auto& one) {
          if constexpr (std::is_same_v<std::decay_t<decltype(one)>, SparseSlices<T, Index>>) {
            one.apply(scales, x, y);
            return true;
          } else {
            return one.apply(scales, x, y);
          }
        },
        one_);
    if (!done)
      each([&](int row, Index column, T value) { y[row] += (scales ? scales[row] : 1.0f) * value * x[column]; });
  }

  template <class F>
  void each(F f) const {
    std::visit([&](const auto& one) { one.each(f); }, one_);
  }

  size_t bytes() const {
    return std::visit([](const auto& one) { return one.bytes(); }, one_) + rows_.bytes();
  }

 private:
  int columns_;
  bool bytes_;
  std::conditional_t<
      sizeof(T) == 1,
      std::variant<SparseSlices<T, Index>, SparsePanels<T, Index, false>, SparsePanels<T, Index, true>>,
      std::variant<SparseSlices<T, Index>, SparsePanels<T, Index, false>>>
      one_;
  LazyRows<T, Index> rows_;
};

template <class T, class Index>
class Sparse final : public Weight {
 public:
  // Columns rise within a row. `split`: the columns before it and those from it on can be multiplied apart.
  Sparse(int rows, int columns, int split, const int64_t* starts, const int32_t* column_of, const T* values,
         const float* scales, bool fast)
      : Weight(rows, columns),
        fast_(fast && kBytes && sizeof(T) == 1),
        scales_(scales, scales == nullptr ? scales : scales + rows) {
    for (const Columns bounds : {Columns{0, split}, Columns{split, columns}}) {
      if (bounds.begin == bounds.end) continue;
      std::vector<Entry<T, Index>> entries;
      for (int r = 0; r < rows; ++r)
        for (int64_t i = starts[r]; i < starts[r + 1]; ++i)
          if (column_of[i] >= bounds.begin && column_of[i] < bounds.end)
            entries.push_back({r, static_cast<Index>(column_of[i] - bounds.begin), values[i]});
      const int width = bounds.end - bounds.begin;
      parts_.push_back({bounds, std::make_unique<SparsePart<T, Index>>(entries, rows, width, fast)});
    }
  }

  void apply(const float* x, float* y, int lanes, Columns used) const override {
    const float* scales = scales_.empty() ? nullptr : scales_.data();
    if (lanes > 1 && parts_.size() == 2 && used.begin == 0 && used.end == columns)
      return whole_.apply(columns, fast_, scales, x, y, lanes, [this](auto add) {
        for (const auto& [bounds, part] : parts_)
          part->each([&, first = bounds.begin](int row, Index column, T value) {
            add(row, static_cast<Index>(first + column), value);
          });
      });
    for (const auto& [bounds, part] : parts_)
      if (bounds.begin < used.end && used.begin < bounds.end)
        part->apply(scales, x + static_cast<size_t>(bounds.begin) * lanes, y, lanes);
  }

  // Slow: a weight that is there to be looked up is a SparseLookup.
  void row(int i, float* out) const override {
    for (const auto& [bounds, part] : parts_)
      part->each([&, first = bounds.begin](int row, Index column, T value) {
        if (row == i) out[first + column] += (scales_.empty() ? 1.0f : scales_[row]) * value;
      });
  }

  size_t bytes() const override {
    size_t total = scales_.size() * 4 + whole_.bytes();
    for (const auto& [bounds, part] : parts_) total += part->bytes();
    return total;
  }

 private:
  bool fast_;
  std::vector<std::pair<Columns, std::unique_ptr<SparsePart<T, Index>>>> parts_;
  LazyRows<T, Index> whole_;
  std::vector<float> scales_;
};

// A sparse matrix whose rows are looked up (an embedding).
template <class T>
class SparseLookup final : public Weight {
 public:
  SparseLookup(int rows, int columns, const int64_t* starts, const int32_t* column_of, const T* values,
               const float* scales)
      : Weight(rows, columns),
        starts_(starts, starts + rows + 1),
        columns_(column_of, column_of + starts[rows]),
        values_(values, values + starts[rows]),
        scales_(scales, scales == nullptr ? scales : scales + rows) {}

  void apply(const float* x, float* y, int lanes, Columns) const override {
    for (int r = 0; r < rows; ++r)
      for (int64_t i = starts_[r]; i < starts_[r + 1]; ++i)
        for (int lane = 0; lane < lanes; ++lane)
          y[static_cast<size_t>(r) * lanes + lane] +=
              scale_of(r) * values_[i] * x[static_cast<size_t>(columns_[i]) * lanes + lane];
  }
  void row(int r, float* out) const override {
    for (int64_t i = starts_[r]; i < starts_[r + 1]; ++i) out[columns_[i]] += scale_of(r) * values_[i];
  }
  size_t bytes() const override {
    return starts_.size() * 8 + columns_.size() * 4 + values_.size() * sizeof(T) + scales_.size() * 4;
  }

 private:
  float scale_of(int row) const { return scales_.empty() ? 1.0f : scales_[row]; }

  std::vector<int64_t> starts_;
  std::vector<int32_t> columns_;
  std::vector<T> values_;
  std::vector<float> scales_;
};

}  // namespace dopant
