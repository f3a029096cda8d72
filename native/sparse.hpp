// A sparse weight: which form it is kept in, and for what.
//
// One lane takes panels where the machine has the permutes for them, else slices; more lanes take rows. The form for
// one lane is made at once, rows when they are first needed. The columns of an LSTM's [x; h] are kept apart, so that
// either half can be multiplied alone.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "sparse_panels.hpp"
#include "sparse_slices.hpp"
#include "weight.hpp"

namespace dopant {

template <class T, class Index>
class SparsePart {
 public:
  SparsePart(SparseRows<T, Index> csr, int columns, bool fast) {
    if (kPanels)
      panels_ = SparsePanels<T, Index>::from(csr, columns, fast && kBytes && sizeof(T) == 1);
    else
      slices_ = SparseSlices<T, Index>::from(csr);
    if (!kPanels) {
      rows_ = std::move(csr);
      std::call_once(made_, [] {});
    }
  }

  void apply(const float* scales, const float* x, float* y, int lanes) const {
    if (lanes > 1) return rows().apply(scales, x, y, lanes, Arena::of_this_thread());
    if (!kPanels) return slices_.apply(scales, x, y);
    if (panels_.apply(scales, x, y)) return;
    add_one_by_one(scales, x, y);
  }

  void row(int r, float scale, float* out) const {
    const auto& csr = rows();
    for (int i = csr.starts[r]; i < csr.starts[r + 1]; ++i) out[csr.columns[i]] += scale * csr.values[i];
  }

  size_t bytes() const { return panels_.bytes() + slices_.bytes() + rows_.bytes(); }

 private:
  const SparseRows<T, Index>& rows() const {
    std::call_once(made_, [this] { rows_ = panels_.to_rows(); });
    return rows_;
  }

  void add_one_by_one(const float* scales, const float* x, float* y) const {
    const auto& csr = rows();
    for (size_t r = 0; r + 1 < csr.starts.size(); ++r) {
      float total = 0.0f;
      for (int i = csr.starts[r]; i < csr.starts[r + 1]; ++i) total += csr.values[i] * x[csr.columns[i]];
      y[r] += (scales == nullptr ? 1.0f : scales[r]) * total;
    }
  }

  SparsePanels<T, Index> panels_;
  SparseSlices<T, Index> slices_;
  mutable SparseRows<T, Index> rows_;
  mutable std::once_flag made_;
};

template <class T, class Index>
class Sparse final : public Weight {
 public:
  // Columns rise within a row. `split`: the columns before it and those behind it can be multiplied apart.
  Sparse(int rows, int columns, int split, const int64_t* starts, const int32_t* column_of, const T* values,
         const float* scales, bool fast)
      : Weight(rows, columns), scales_(scales, scales == nullptr ? scales : scales + rows) {
    const int bounds[] = {0, split, columns};
    for (int part = 0; part < 2; ++part) {
      const int begin = bounds[part], end = bounds[part + 1];
      if (begin == end) continue;
      SparseRows<T, Index> csr;
      csr.starts.push_back(0);
      for (int r = 0; r < rows; ++r) {
        for (int64_t i = starts[r]; i < starts[r + 1]; ++i) {
          if (column_of[i] < begin || column_of[i] >= end) continue;
          csr.columns.push_back(static_cast<Index>(column_of[i] - begin));
          csr.values.push_back(values[i]);
        }
        csr.starts.push_back(static_cast<int32_t>(csr.values.size()));
      }
      parts_.push_back({begin, std::make_unique<SparsePart<T, Index>>(std::move(csr), end - begin, fast)});
    }
  }

  void apply(const float* x, float* y, int lanes, Columns used) const override {
    for (const auto& part : parts_)
      if (part.first < used.end && (&part == &parts_.back() ? columns : (&part)[1].first) > used.begin)
        part.columns->apply(scales(), x + static_cast<size_t>(part.first) * lanes, y, lanes);
  }

  void row(int i, float* out) const override {
    for (const auto& part : parts_) part.columns->row(i, scales_.empty() ? 1.0f : scales_[i], out + part.first);
  }

  size_t bytes() const override {
    size_t total = scales_.size() * 4;
    for (const auto& part : parts_) total += part.columns->bytes();
    return total;
  }

 private:
  const float* scales() const { return scales_.empty() ? nullptr : scales_.data(); }

  struct Part {
    int first;
    std::unique_ptr<SparsePart<T, Index>> columns;
  };
  std::vector<Part> parts_;
  std::vector<float> scales_;
};

}  // namespace dopant
