// An order of a sparse matrix's rows and columns in which those with many non-zeros come first: their places. In trained
// overlays some have many times the non-zeros of others, and what is put into blocks is filled up less when like is beside like.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <vector>

#include "arena.hpp"
#include "layout.hpp"
#include "sparse_entry.hpp"
#include "vec.hpp"

namespace dopant {

#if defined(__AVX512F__)

inline std::vector<int32_t> inverse(const std::vector<int32_t>& order, int count) {
  std::vector<int32_t> result(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) result[order[i]] = i;
  return result;
}

// Indices in the order of falling counts.
inline std::vector<int32_t> order_of(const std::vector<int>& counts) {
  std::vector<int32_t> order(counts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
  return order;
}

// Many lanes of y, whose rows lie `stride` apart; scales may be null.
struct PlacedRows {
  const float* scales;
  float* y;
  size_t stride;
  const int32_t* row_at;  // of each place
  int count;

  // y += scale · total, of N lanes from `lane` on; nothing at places beyond the last.
  template <int N>
  void add(int place, int lane, Vec<N> total) const {
    if (place >= count) return;
    const int row = row_at[place];
    float* to = y + row * stride + lane;
    store<N>(to, load<N>(to) + (scales == nullptr ? total : scales[row] * total));
  }

  // The same of P lanes' totals, which lie `height` apart, each times its factor.
  template <int P>
  void add_all(const float* totals, size_t height, Vec<P> factors) const {
    for (int place = 0; place < count; place += P == 4 ? 4 : 16)
      if constexpr (P == 8)
        transpose_8_by_16(totals + place, height, [&](int r, Vec<16> two) {
          add<P>(place + r, 0, factors * first_half<8>(two));
          add<P>(place + r + 1, 0, factors * second_half<8>(two));
        });
      else
        transpose_block<P>(totals + place, height, [&](int r, Vec<P> total) { add<P>(place + r, 0, factors * total); });
  }
};

// f(P) for the largest P of 16, 8 and 4 that is not more than the lanes that are left.
template <class F>
inline void with_width(std::ptrdiff_t left, F f) {
  if (left >= 16)
    f(std::integral_constant<int, 16>());
  else if (left >= 8)
    f(std::integral_constant<int, 8>());
  else
    f(std::integral_constant<int, 4>());
}

struct SparseOrder {
  int rows = 0, columns = 0;
  std::vector<int32_t> place_of_row, column_at;  // filled up to whole registers, two of them

  // Gives entries their places for rows and columns, and their order. better(entries, rows in the order of their counts), once
  // entries have places for columns: the order of rows.
  template <class T, class Better>
  static SparseOrder from(std::vector<Entry<T>>& entries, int rows, int columns, Better better) {
    SparseOrder result;
    result.rows = rows;
    result.columns = columns;
    std::vector<int> in_row(static_cast<size_t>(rows)), in_column(static_cast<size_t>(columns));
    for (const auto& entry : entries) ++in_row[entry.row], ++in_column[entry.column];
    result.column_at = order_of(in_column);
    const std::vector<int32_t> place_of_column = inverse(result.column_at, columns);
    for (auto& entry : entries) entry.column = static_cast<uint16_t>(place_of_column[entry.column]);
    result.place_of_row = inverse(better(entries, order_of(in_row)), rows);
    for (auto& entry : entries) entry.row = result.place_of_row[entry.row];
    sort_by_rows(entries);
    result.place_of_row.resize((result.place_of_row.size() + 31) / 32 * 32);
    result.column_at.resize((result.column_at.size() + 31) / 32 * 32);
    return result;
  }

  // The rows and columns of entries that have places.
  template <class T>
  void undo(std::vector<Entry<T>>& entries) const {
    const std::vector<int32_t> row_at = inverse(place_of_row, rows);
    for (auto& entry : entries) {
      entry.row = row_at[entry.row];
      entry.column = static_cast<uint16_t>(column_at[entry.column]);
    }
    sort_by_rows(entries);
  }

  size_t bytes() const { return (place_of_row.size() + column_at.size()) * 4; }

  // to = x in the order of places, up to a whole register.
  void put_in_places(const float* x, float* to) const {
    for (int k = 0; k < columns; k += W) store<W>(to + k, from_places(x, column_at.data() + k));
  }

  // The same of P lanes, whose rows lie `stride` apart, each for itself.
  template <int P>
  void put_in_places(const float* x, size_t stride, float* to, size_t to_stride) const {
    for (int j = 0; j < columns; j += P)
      transpose_rows<P>([&](int k) { return x + column_at[j + k] * stride; },
                        [&](int k, Vec<P> lane) { store<P>(to + k * to_stride + j, lane); });
  }

  PlacedRows placed(const float* scales, float* y, int lanes, Arena& arena) const {
    int32_t* row_at = arena.take<int32_t>(static_cast<size_t>(rows));
    for (int row = 0; row < rows; ++row) row_at[place_of_row[row]] = row;
    return {scales, y, static_cast<size_t>(lanes), row_at, rows};
  }

  // y += scale[row] · scale · totals, which are in the order of places; scales may be null.
  void add_totals(const float* scales, float scale, const float* totals, float* y) const {
    for (int r = 0; r < rows; r += W) {
      const int count = std::min(W, rows - r);
      Vec<W> unit = all<W>(scale);
      if (scales != nullptr) unit *= load_first(scales + r, count);
      const Vec<W> total = from_places(totals, place_of_row.data() + r);
      store_first(y + r, load_first(y + r, count) + unit * total, count);
    }
  }

 private:
  static Vec<W> from_places(const float* values, const int32_t* places) {
    return (Vec<W>)_mm512_i32gather_ps(_mm512_loadu_si512(places), values, 4);
  }
};

#endif

}  // namespace dopant
