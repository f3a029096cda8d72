// A sparse matrix in panels of floats, for processors whose permutes look floats up in registers but not bytes.
//
// A panel is a strip of 32 columns, whose x fills two registers; a block is 64 rows. A unit is a slot for each row of a block
// in one panel: 64 bytes of column index and 64 values. Four permutes look up x for it, and four multiply-accumulates add to
// sums that stay in registers until the block is done. A row that has nothing to put into its slot leaves a zero there, so a
// unit is made where enough rows have something; all else is left to gaps. Rows and columns are ordered for that by their
// counts (sparse_order.hpp). Of many lanes four come at a time, each looked up for itself.
#pragma once

#include <algorithm>
#include <vector>

#include "arena.hpp"
#include "sparse_gaps.hpp"
#include "sparse_order.hpp"

namespace dopant {

#if defined(__AVX512F__) && defined(__AVX512BW__)
template <class T>
struct SparseFloatPanels {
  static constexpr int kWidth = 32, kHeight = 64;
  static constexpr size_t kUnitBytes = kHeight + kHeight * sizeof(T);
  // Slots of a unit that are taken, at least. With 8 one lane takes a tenth less, but many a third more, and memory is 1.6 times
  // as much.
  static constexpr int kLeast = 36;

  SparseOrder order;
  std::vector<int32_t> ends;       // of blocks, in units
  std::vector<uint16_t> panel_of;  // units, block after block
  AlignedVector<uint8_t> units;    // likewise: 64 bytes of index, 64 values
  SparseGaps<T> rest;

  int most_singly() const { return 1; }  // four lanes together take as long as two
  size_t bytes() const {
    return order.bytes() + ends.size() * 4 + panel_of.size() * 2 + units.size() + rest.bytes();
  }

  static SparseFloatPanels from(std::vector<Entry<T>> entries, int rows, int columns) {
    SparseFloatPanels result;
    result.order = SparseOrder::from(entries, rows, columns, [](const auto&, std::vector<int32_t> by_count) { return by_count; });
    std::vector<Entry<T>> left;
    const Entry<T>* entry = entries.data();
    for (int first = 0; first < rows; first += kHeight)
      entry = result.add_block(entry, entries.data() + entries.size(), first, left);
    result.order.undo(left);
    result.rest = SparseGaps<T>::from(left);
    if (result.units.empty()) result.order = {}, result.ends = {};
    result.panel_of.shrink_to_fit();
    result.units.shrink_to_fit();
    return result;
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    each_in_units(f);
    rest.each(f);
  }

  // y += scale[row] · (this x); scales may be null.
  void apply(const float* scales, const float* x, float* y) const {
    rest.apply(scales, x, y);
    if (units.empty()) return;
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float *ordered = arena.take<float>(padded_columns()), *totals = arena.take<float>(height());
    order.put_in_places(x, ordered);
    multiply<1>(ordered, totals);
    order.add_totals(scales, 1.0f, totals, y);
  }

  // The same of y (rows, lanes) and x (columns, lanes), of less than 2^31 numbers.
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    rest.apply_lanes(scales, x, y, lanes);
    if (units.empty()) return;
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    PlacedRows to = order.placed(scales, y, lanes, arena);
    for (const float* end = x + lanes; x < end;)
      with_width(end - x, [&](auto count) {
        multiply_lanes<count>(x, to, arena);
        x += count, to.y += count;
      });
  }

 private:
  // Of a block's entries, which begin at `entry`, those that share units with enough others; the rest is left. Where the next
  // block's begin.
  const Entry<T>* add_block(const Entry<T>* entry, const Entry<T>* end, int first, std::vector<Entry<T>>& left) {
    const Entry<T>* next[kHeight + 1];  // of each row
    for (int r = 0; r <= kHeight; ++r) {
      next[r] = entry;
      while (r < kHeight && entry < end && entry->row == first + r) ++entry;
    }
    const Entry<T>* const begins_after = entry;
    std::vector<const Entry<T>*> ends_of(next + 1, next + kHeight + 1);
    for (int panel = 0; panel * kWidth < order.columns; ++panel) {
      int here[kHeight], most = 0;
      for (int r = 0; r < kHeight; ++r) {
        const Entry<T>* last = next[r];
        while (last < ends_of[r] && last->column < (panel + 1) * kWidth) ++last;
        here[r] = static_cast<int>(last - next[r]);
        most = std::max(most, here[r]);
      }
      for (int n = 0; n < most; ++n) {
        const bool enough = std::count_if(here, here + kHeight, [=](int count) { return count > n; }) >= kLeast;
        uint8_t* unit = enough ? add_unit(panel) : nullptr;
        for (int r = 0; r < kHeight; ++r) {
          if (here[r] <= n) continue;
          const Entry<T>& one = *next[r]++;
          if (!enough) {
            left.push_back(one);
            continue;
          }
          unit[index_place(r)] = static_cast<uint8_t>(one.column % kWidth);
          reinterpret_cast<T*>(unit + kHeight)[r] = one.value;
        }
      }
    }
    ends.push_back(static_cast<int32_t>(panel_of.size()));
    return begins_after;
  }

  uint8_t* add_unit(int panel) {
    panel_of.push_back(static_cast<uint16_t>(panel));
    units.resize(units.size() + kUnitBytes);
    return units.data() + units.size() - kUnitBytes;
  }

  // Where the index of a row's slot lies in its unit: each 32 bits hold those of four rows, 16 apart.
  static int index_place(int row) { return row % 16 * 4 + row / 16; }

  // f(row, column, value) for every entry in the units that is not zero.
  template <class F>
  void each_in_units(F f) const {
    const std::vector<int32_t> row_at = inverse(order.place_of_row, order.rows);
    int n = 0;
    for (size_t block = 0; block < ends.size(); ++block)
      for (; n < ends[block]; ++n) {
        const uint8_t* unit = units.data() + n * kUnitBytes;
        for (int r = 0; r < kHeight; ++r) {
          const T value = reinterpret_cast<const T*>(unit + kHeight)[r];
          if (value == T{0}) continue;
          const int32_t column = order.column_at[panel_of[n] * kWidth + unit[index_place(r)]];
          f(row_at[block * kHeight + r], static_cast<uint16_t>(column), value);
        }
      }
  }

  size_t padded_columns() const { return static_cast<size_t>(order.columns + kWidth - 1) / kWidth * kWidth; }
  size_t height() const { return ends.size() * kHeight; }

  // P lanes, which lie beside each other.
  template <int P>
  void multiply_lanes(const float* x, const PlacedRows& to, Arena& arena) const {
    Arena::Scope scope(arena);
    float *ordered = arena.take<float>(padded_columns() * P), *totals = arena.take<float>(height() * P);
    order.put_in_places<P>(x, to.stride, ordered, padded_columns());
    for (int lane = 0; lane < P; lane += 4) multiply<4>(ordered + lane * padded_columns(), totals + lane * height());
    to.add_all<P>(totals, height(), all<P>(1.0f));
  }

  // totals (L, height) = units · x (L, columns), both in the order of places. Lanes share what it takes to read units.
  template <int L>
  __attribute__((noinline)) void multiply(const float* x, float* totals) const {
    const size_t width = padded_columns(), all_rows = height();
    const uint8_t* unit = units.data();
    const uint16_t* panel = panel_of.data();
    for (const int32_t end : ends) {
      Vec<16> sums[L][kHeight / 16];
#pragma GCC unroll 16
      for (int k = 0; k < L * 4; ++k) sums[k / 4][k % 4] = Vec<16>{};
      for (const uint16_t* const last = panel_of.data() + end; panel < last; ++panel, unit += kUnitBytes) {
        _mm_prefetch(unit + 1024, _MM_HINT_T0);  // a twentieth faster; values of floats come fast enough by themselves
        if (sizeof(T) == 1) _mm_prefetch(unit + 1088, _MM_HINT_T0);
        const float* from = x + *panel * kWidth;
        const T* value = reinterpret_cast<const T*>(unit + kHeight);
        const __m512i indices = _mm512_load_si512(unit);
        __m512i index[4];
        Vec<16> values[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          // The permute reads 5 bits of a lane: what lies above them, of the other groups, does not matter.
          index[k] = _mm512_srli_epi32(indices, static_cast<unsigned>(8 * k));
          values[k] = widen<16>(value + 16 * k);
        }
#pragma GCC unroll 4
        for (int l = 0; l < L; ++l) {
          const __m512 low = _mm512_load_ps(from + l * width), high = _mm512_load_ps(from + l * width + 16);
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) sums[l][k] += (Vec<16>)_mm512_permutex2var_ps(low, index[k], high) * values[k];
        }
      }
#pragma GCC unroll 16
      for (int k = 0; k < L * 4; ++k) {
        store<16>(totals + k / 4 * all_rows + k % 4 * 16, sums[k / 4][k % 4]);
        if (any_nan<16>(sums[k / 4][k % 4])) add_without_zeros(end, k % 4 * 16, x + k / 4 * width, totals + k / 4 * all_rows);
      }
      totals += kHeight;
    }
  }

  // Sixteen rows of the block whose units have this end, from the `first` on. A sum that is NaN may be so by a zero that fills up,
  // times infinity.
  __attribute__((noinline, cold)) void add_without_zeros(int32_t end, int first, const float* x, float* totals) const {
    const auto block = std::lower_bound(ends.begin(), ends.end(), end);
    for (int r = first; r < first + 16; ++r) {
      totals[r] = 0.0f;
      for (int32_t n = block == ends.begin() ? 0 : block[-1]; n < end; ++n) {
        const uint8_t* unit = units.data() + n * kUnitBytes;
        const T value = reinterpret_cast<const T*>(unit + kHeight)[r];
        if (value != T{0}) totals[r] += value * x[panel_of[n] * kWidth + unit[index_place(r)]];
      }
    }
  }
};

#endif

}  // namespace dopant
