// A sparse weight: which form it is kept in, for any number of lanes.
//
// Where the processor has permutes and dot instructions for bytes, 8-bit values lie in banks, or else in panels; other values,
// and 8-bit ones where it has the permutes of AVX-512 for floats alone, in panels of floats; with AVX2 in fast 8-bit values
// that spread evenly in units for shuffles; all else in slices with gaps.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "sparse_banks.hpp"
#include "sparse_float_panels.hpp"
#include "sparse_gaps.hpp"
#include "sparse_panels.hpp"
#include "sparse_shuffles.hpp"
#include "weight.hpp"

namespace dopant {

template <class T>
class Sparse final : public Weight {
 public:
  // Entries in the order of rows, and of columns within a row.
  Sparse(int rows, int columns, const std::vector<Entry<T>>& entries, const float* scales, bool fast)
      : Weight(rows, columns),
        fast_(fast),
        scales_(scales, scales == nullptr ? scales : scales + rows),
        form_(form_of(entries, rows, columns, !fast)) {}

  void apply(const float* x, float* y, int lanes) const override {
    const float* scales = scales_.empty() ? nullptr : scales_.data();
    std::visit([&](const auto& form) { lanes > 1 ? form.apply_lanes(scales, x, y, lanes) : form.apply(scales, x, y); }, form_);
  }

  int most_singly() const override {
    return std::visit([](const auto& form) { return form.most_singly(); }, form_);
  }

  bool gains_by_lanes() const override {
    return std::visit([](const auto& form) { return std::is_same_v<decltype(form), const SparseGaps<T>&>; }, form_);
  }

  // Slow: a weight that is there to be looked up is a SparseLookup.
  void row(int i, float* out) const override {
    each([&](int row, uint16_t column, T value) {
      if (row == i) out[column] += (scales_.empty() ? 1.0f : scales_[i]) * value;
    });
  }

  WeightPointer columns_of(int first, int count) const override {
    std::vector<Entry<T>> entries;
    each([&](int row, uint16_t column, T value) {
      if (column >= first && column < first + count) entries.push_back({row, static_cast<uint16_t>(column - first), value});
    });
    sort_by_rows(entries);
    return std::make_shared<Sparse>(rows, count, entries, scales_.empty() ? nullptr : scales_.data(), fast_);
  }

  size_t bytes() const override {
    return scales_.size() * 4 + std::visit([](const auto& form) { return form.bytes(); }, form_);
  }

 private:
#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
  static_assert(kMostSparseColumns <= kMostByteColumns);
  using Form = std::conditional_t<sizeof(T) == 1, std::variant<SparsePanels, SparseBanks>, std::variant<SparseFloatPanels<T>>>;
#elif defined(__AVX512F__) && defined(__AVX512BW__)
  using Form = std::variant<SparseFloatPanels<T>>;
#elif defined(__AVX2__) && !defined(__AVX512F__)
  using Form = std::conditional_t<sizeof(T) == 1, std::variant<SparseGaps<T>, SparseShuffles>, std::variant<SparseGaps<T>>>;
#else
  using Form = std::variant<SparseGaps<T>>;
#endif

  static Form form_of(const std::vector<Entry<T>>& entries, int rows, int columns, bool exact) {
    using First = std::variant_alternative_t<0, Form>;
    if constexpr (std::variant_size_v<Form> > 1)
      if (auto found = std::variant_alternative_t<1, Form>::from(entries, rows, columns, exact)) return std::move(*found);
    if constexpr (std::is_same_v<First, SparseGaps<T>>)
      return First::from(entries);
    else if constexpr (std::variant_size_v<Form> > 1)
      return First::from(entries, rows, columns, exact);
    else
      return First::from(entries, rows, columns);
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    std::visit([&](const auto& form) { form.each(f); }, form_);
  }

  const bool fast_;
  const std::vector<float> scales_;
  const Form form_;
};

// A sparse matrix whose rows are looked up (an embedding).
template <class T>
class SparseLookup final : public Weight {
 public:
  // Entries in the order of rows.
  SparseLookup(int rows, int columns, const std::vector<Entry<T>>& entries, const float* scales)
      : Weight(rows, columns), starts_(static_cast<size_t>(rows) + 1), scales_(scales, scales == nullptr ? scales : scales + rows) {
    for (const auto& entry : entries) {
      ++starts_[entry.row + 1];  // as many entries as 32 bits count
      columns_.push_back(entry.column);
      values_.push_back(entry.value);
    }
    for (int r = 0; r < rows; ++r) starts_[r + 1] += starts_[r];
    columns_.shrink_to_fit();
    values_.shrink_to_fit();
  }

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
    return starts_.size() * 4 + columns_.size() * 2 + values_.size() * sizeof(T) + scales_.size() * 4;
  }

 private:
  float scale_of(int row) const { return scales_.empty() ? 1.0f : scales_[row]; }

  std::vector<uint32_t> starts_;
  std::vector<uint16_t> columns_;
  std::vector<T> values_;
  std::vector<float> scales_;
};

}  // namespace dopant
