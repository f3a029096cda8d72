// A sparse matrix in panels. One lane: x is looked up in registers, never gathered from memory. Where values are bytes, more
// lanes too: one after the other, or in exact 32 together in floats. How panels are filled: sparse_panels_packing.hpp; inner
// loops: sparse_panels_kernels.hpp.
//
// A panel is a strip of columns whose x fits into a few registers, a block some rows of it. Within a block every row
// has the same number of slots, a byte of local column index and a value each; one register permute looks up a whole
// register of slots. Rows with more non-zeros than slots leave the rest to slices, rows with fewer hold zeros: the
// number of slots is chosen, block by block, to cost least. Blocks with equal numbers follow each other, so that the
// processor foresees where each ends. In trained overlays some rows and columns have many times the non-zeros of
// others: columns are put in the order of their counts, and rows beside those that need like numbers of slots in each
// panel, so that there is less to fill up.
//
//   floats: 32 columns, blocks of 64 rows: 64 slots are 4 permutes and 4 multiply-accumulates
//   bytes (values of 8 bits): 256 columns, blocks of 16 rows: 64 slots are 2 permutes, of two registers each, and a dot
//   instruction, which adds up 4 of a row, for each digit of x (bytes.hpp): one in fast, three or four in exact
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "layout.hpp"
#include "sparse_panels_kernels.hpp"
#include "sparse_panels_packing.hpp"
#include "sparse_slices.hpp"

namespace dopant {

#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr bool kPanels = true;
#else
constexpr bool kPanels = false;
#endif

template <class T, class Index, bool Bytes>
struct SparsePanels : PackedPanels<T, Index, Bytes> {
  using Packed = PackedPanels<T, Index, Bytes>;
  using Packed::rows, Packed::columns, Packed::place_of_row, Packed::column_at, Packed::runs, Packed::block_of, Packed::units;
  using Packed::panels, Packed::blocks, Packed::each_in_units, Packed::kWidth, Packed::kHeight;

  bool exact = false;  // of bytes: x in as many digits as it takes, not one
  SparseSlices<T, Index> rest;

  int most_singly() const { return 3; }  // four lanes together take as long as three, and rows less than that
  size_t bytes() const { return Packed::bytes() + rest.bytes(); }

  // Entries in the order of rows.
  static SparsePanels from(const std::vector<Entry<T, Index>>& entries, int rows, int columns, bool exact) {
    std::vector<Entry<T, Index>> left;
    Packed packed = Packed::from(entries, rows, columns, left);
    return {std::move(packed), exact, SparseSlices<T, Index>::from(left)};
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    each_in_units(f);
    rest.each(f);
  }

  // y += scale[row] · (this x); scales may be null. False where x is not finite: slots that are there to fill up would make
  // NaN of it, and no bytes can stand for it.
  bool apply(const float* scales, const float* x, float* y) const {
    if (place_of_row.empty()) return true;  // there is nothing
    if (!apply_units(scales, x, y)) return false;
    rest.apply(scales, x, y);
    return true;
  }

  // The same of y (rows, lanes) and x (columns, lanes), where values are bytes; x need not be finite.
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    if (place_of_row.empty()) return;
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    int32_t* row_at = arena.take<int32_t>(static_cast<size_t>(rows));
    for (int row = 0; row < rows; ++row) row_at[place_of_row[row]] = row;
    PanelRows to{scales, y, static_cast<size_t>(lanes), row_at};
    const auto next = [&](auto count) {
      apply_digits<count>(x + (to.y - y), to, arena);
      to.y += count;
    };
    for (int left = lanes; left > 0; left = lanes - static_cast<int>(to.y - y)) {
      if (exact && left >= 32 && apply_floats(x + (to.y - y), to, arena))
        to.y += 32;
      else if (left >= 16)
        next(std::integral_constant<int, 16>());
      else if (left >= 8)
        next(std::integral_constant<int, 8>());
      else
        next(std::integral_constant<int, 4>());
    }
    rest.apply_lanes(scales, x, y, lanes);
  }

 private:
  size_t padded_columns() const { return static_cast<size_t>(panels()) * kWidth; }
  size_t height() const { return static_cast<size_t>(blocks()) * kHeight; }
  PanelUnits all() const { return {runs, block_of.data(), units.data()}; }

  static Vec<W> from_places(const float* values, const int32_t* places) {
#if defined(__AVX512F__)
    return (Vec<W>)_mm512_i32gather_ps(_mm512_loadu_si512(places), values, 4);
#else
    Vec<W> v{};
    for (int lane = 0; lane < W; ++lane) v[lane] = values[places[lane]];
    return v;
#endif
  }

  // to = x in the order of places.
  void put_in_places(const float* x, float* to) const {
    for (int k = 0; k < columns; k += W) store<W>(to + k, from_places(x, column_at.data() + k));
  }

  // y += scale[row] · scale · totals, which are in the order of places.
  void add_totals(const float* scales, float scale, const float* totals, float* y) const {
    for (int r = 0; r < rows; r += W) {
      const int count = std::min(W, rows - r);
      Vec<W> unit = dopant::all<W>(scale);
      if (scales != nullptr) unit *= load_first(scales + r, count);
      const Vec<W> total = from_places(totals, place_of_row.data() + r);
      store_first(y + r, load_first(y + r, count) + unit * total, count);
    }
  }

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
  bool apply_units(const float* scales, const float* x, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    if constexpr (!Bytes) return apply_float_units(scales, x, y, arena);
    const int32_t edges[] = {0, columns};
    const ByteRoom room(1, exact, one_strip(edges), arena);
    put_in_places(x, room.x);
    float* totals = arena.take<float>(height());
    bool finite = true;
    in_turns(room, room.x, arena, [&](int) { finite = false; }, [&](const ByteLane* lane, const ByteScales& scale_of_lane) {
      if (!finite) return;
      multiply(lane, 1, totals, arena);
      add_totals(scales, scale_of_lane[0], totals, y);
    });
    return finite;
  }

  // P lanes, one after the other; rows of x lie as far apart as those of y.
  template <int P>
  void apply_digits(const float* x, const PanelRows& to, Arena& arena) const {
    Arena::Scope scope(arena);
    const int32_t edges[] = {0, columns};
    const ByteRoom room(P, exact, one_strip(edges), arena);
    for (int j = 0; j < columns; j += P)  // there are places up to whole registers
      transpose_rows<P>([&](int k) { return x + column_at[j + k] * to.stride; },
                        [&](int k, Vec<P> lane) { store<P>(room.x + k * room.width + j, lane); });
    float* totals = arena.take<float>(height() * P);
    const auto slowly = [&](int lane) {
      each_in_units([&](int row, Index column, T value) {
        const float factor = (to.scales == nullptr ? 1.0f : to.scales[row]) * value;
        to.y[row * to.stride + lane] += factor * x[column * to.stride + lane];
      });
    };
    in_turns(room, room.x, arena, slowly, [&](const ByteLane* lanes, const ByteScales& scale_of_lane) {
      multiply(lanes, P, totals, arena);
      const Vec<P> scale_of_lanes = load<P>(scale_of_lane);
      const auto add = [&](int place, Vec<P> total) {
        if (place < rows) to.add<P>(place, 0, scale_of_lanes * total);
      };
      for (int place = 0; place < rows; place += P == 4 ? 4 : 16)
        if constexpr (P == 8)
          transpose_8_by_16(totals + place, height(), [&](int r, Vec<16> two) {
            add(place + r, first_half<8>(two));
            add(place + r + 1, second_half<8>(two));
          });
        else
          transpose_block<P>(totals + place, height(), [&](int r, Vec<P> total) { add(place + r, total); });
    });
  }

  // 32 lanes together, which is faster than one after the other where digits are many. False, and nothing done, if x is
  // not finite.
  bool apply_floats(const float* x, const PanelRows& to, Arena& arena) const {
    Arena::Scope scope(arena);
    float* ordered = arena.take<float>(padded_columns() * 32);
    IntVec<16> most{};  // as integers, so that a NaN counts as larger than any number
    for (int j = 0; j < columns; ++j)
      for (int lane = 0; lane < 32; lane += 16) {
        const Vec<16> v = load<16>(x + column_at[j] * to.stride + lane);
        const IntVec<16> size = (IntVec<16>)v & 0x7fffffff;
        most = size > most ? size : most;
        store<16>(ordered + j * 32 + lane, v);
      }
    for (int lane = 0; lane < 16; ++lane)
      if (most[lane] >= 0x7f800000) return false;
    float_lanes(all(), ordered, rows, to);
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
#else
  bool apply_units(const float* scales, const float* x, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    return apply_float_units(scales, x, y, arena);
  }
  // Never made: see sparse.hpp.
  template <int P>
  void apply_digits(const float*, const PanelRows&, Arena&) const {}
  bool apply_floats(const float*, const PanelRows&, Arena&) const { return false; }
#endif

  bool apply_float_units(const float* scales, const float* x, float* y, Arena& arena) const {
#if defined(__AVX512F__) && defined(__AVX512BW__)
    if (!std::isfinite(largest_size(x, columns))) return false;
    float *ordered = arena.take<float>(padded_columns()), *totals = arena.take<float>(height());
    put_in_places(x, ordered);
    std::memset(ordered + columns, 0, sizeof(float) * (padded_columns() - columns));
    std::memset(totals, 0, sizeof(float) * height());
    float_units<T>(all(), ordered, totals);
    add_totals(scales, 1.0f, totals, y);
#endif
    return true;
  }
};

}  // namespace dopant
