// A sparse matrix of 8-bit values in panels of bytes. x is looked up in registers, never gathered from memory. Lanes come one
// after the other, or in exact 32 together in floats. How panels are filled: sparse_panels_packing.hpp; inner loops:
// sparse_panels_kernels.hpp.
//
// A panel is a strip of 256 columns, whose digits (bytes.hpp) fit into a few registers, a block 16 rows of it. Within a block
// every row has the same number of slots, a byte of local column index and a value each, four of them in a unit of 64 slots:
// that is 2 permutes, of two registers each, and a dot instruction, which adds up 4 of a row, for each digit of x: one in fast,
// three or four in exact. Rows with more non-zeros than slots leave the rest to gaps, rows with fewer hold zeros: the
// number of slots is chosen, block by block, to cost least. Blocks with equal numbers follow each other, so that the
// processor foresees where each ends. Columns are put in the order of their counts, and rows beside those that need like numbers
// of slots in each panel, so that there is less to fill up.
#pragma once

#include <cstring>
#include <utility>
#include <vector>

#include "sparse_gaps.hpp"
#include "sparse_panels_kernels.hpp"
#include "sparse_panels_packing.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

struct SparsePanels : PackedPanels {
  bool exact = false;  // x in as many digits as it takes, not one
  SparseGaps<int8_t> rest;

  int most_singly() const { return 3; }  // four lanes together take as long as three
  size_t bytes() const { return PackedPanels::bytes() + rest.bytes(); }

  static SparsePanels from(const std::vector<Entry<int8_t>>& entries, int rows, int columns, bool exact) {
    std::vector<Entry<int8_t>> left;
    PackedPanels packed = PackedPanels::from(entries, rows, columns, left);
    return {std::move(packed), exact, SparseGaps<int8_t>::from(left)};
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
    if (!runs.empty()) apply_digits(scales, x, y);
  }

  // The same of y (rows, lanes) and x (columns, lanes), of less than 2^31 numbers.
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    rest.apply_lanes(scales, x, y, lanes);
    if (runs.empty()) return;
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    PlacedRows to = order.placed(scales, y, lanes, arena);
    for (const float* end = x + lanes; x < end;)
      if (exact && end - x >= 32 && apply_floats(x, to, arena))
        x += 32, to.y += 32;
      else
        with_width(end - x, [&](auto count) {
          apply_digits<count>(x, to, arena);
          x += count, to.y += count;
        });
  }

 private:
  size_t padded_columns() const { return static_cast<size_t>(panels()) * kWidth; }
  size_t height() const { return static_cast<size_t>(blocks()) * kHeight; }
  PanelUnits all() const { return {runs, block_of.data(), units.data()}; }

  // One lane.
  void apply_digits(const float* scales, const float* x, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const int32_t edges[] = {0, order.columns};
    const ByteRoom room(1, exact, one_strip(edges), arena);
    order.put_in_places(x, room.x);
    float* totals = arena.take<float>(height());
    in_turns(room, room.x, arena, [&](int) { apply_slowly(scales, x, y, 1); }, [&](const ByteLane* lane, const ByteScales& scale_of_lane) {
      multiply(lane, 1, totals, arena);
      order.add_totals(scales, scale_of_lane[0], totals, y);
    });
  }

  // One of many lanes; rows of x and y lie `stride` apart.
  void apply_slowly(const float* scales, const float* x, float* y, size_t stride) const {
    each_in_units([&](int row, uint16_t column, int8_t value) {
      y[row * stride] += (scales == nullptr ? 1.0f : scales[row]) * value * x[column * stride];
    });
  }

  // P lanes, one after the other; rows of x lie as far apart as those of y.
  template <int P>
  void apply_digits(const float* x, const PlacedRows& to, Arena& arena) const {
    Arena::Scope scope(arena);
    const int32_t edges[] = {0, order.columns};
    const ByteRoom room(P, exact, one_strip(edges), arena);
    order.put_in_places<P>(x, to.stride, room.x, room.width);
    float* totals = arena.take<float>(height() * P);
    const auto slowly = [&](int lane) { apply_slowly(to.scales, x + lane, to.y + lane, to.stride); };
    in_turns(room, room.x, arena, slowly, [&](const ByteLane* lanes, const ByteScales& scale_of_lane) {
      multiply(lanes, P, totals, arena);
      to.add_all<P>(totals, height(), load<P>(scale_of_lane));
    });
  }

  // 32 lanes together, which is faster than one after the other where digits are many. False, and nothing done, if x is
  // not finite.
  bool apply_floats(const float* x, const PlacedRows& to, Arena& arena) const {
    Arena::Scope scope(arena);
    float* ordered = arena.take<float>(padded_columns() * 32);
    __m512i most = _mm512_setzero_si512();
    for (int j = 0; j < order.columns; ++j)
      for (int lane = 0; lane < 32; lane += 16) {
        const Vec<16> v = load<16>(x + order.column_at[j] * to.stride + lane);
        most = larger_size(most, (__m512)v);
        store<16>(ordered + j * 32 + lane, v);
      }
    if (!all_finite(most)) return false;
    float_lanes(all(), ordered, to);
    return true;
  }

  Strips one_strip(const int32_t* edges) const { return {edges, 1, static_cast<int>(padded_columns())}; }

  // totals (count, height) = units · digits, the last digit counting 1.
  void multiply(const ByteLane* lanes, int count, float* totals, Arena& arena) const {
    Arena::Scope scope(arena);
    const size_t all_rows = height();
    float* lower = arena.take<float>(all_rows);
    for (int k = 0; k < count;) {
      float* to = totals + k * all_rows;
      k += next_lanes(lanes + k, count - k, [&](auto digits, auto together) {
        constexpr int D = digits, L = together;
        std::memset(to, 0, sizeof(float) * L * all_rows);
        if constexpr (D > 0) {
          int32_t* first = reinterpret_cast<int32_t*>(to);  // the sums of first digits, until they are numbers
          if (D > 1) std::memset(lower, 0, sizeof(float) * all_rows);
          byte_units<D, L>(all(), lanes + k, first, lower, all_rows);
          for (size_t r = 0; r < L * all_rows; r += 16) {
            __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(first + r));
            if (D > 1) sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(D == 3 ? 0x1p16f : 0x1p24f), _mm512_load_ps(lower + r));
            _mm512_store_ps(to + r, sum);
          }
        }
      });
    }
  }
};

#endif

}  // namespace dopant
