// A sparse matrix in panels, for one lane: x is looked up in registers, never gathered from memory.
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
//   bytes (values of 8 bits): 256 columns, blocks of 16 rows: 64 slots are 4 permutes and a dot instruction, which adds up
//   4 of a row, for each digit of x (bytes.hpp): one in fast, three or four in exact
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "sparse_slices.hpp"

namespace dopant {

#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr bool kPanels = true;
#else
constexpr bool kPanels = false;
#endif

struct PanelRun {  // blocks of a panel that have the same number of units
  int32_t panel, units, blocks;
};

template <class T, class Index, bool Bytes>
struct SparsePanels {
  static constexpr int kWidth = Bytes ? 256 : 32;  // columns of a panel
  static constexpr int kHeight = Bytes ? 16 : 64;  // rows of a block
  static constexpr int kEach = Bytes ? 4 : 1;      // slots of a row in a unit of 64
  static constexpr size_t kUnitBytes = 64 + 64 * sizeof(T);

  int rows = 0, columns = 0;
  bool exact = false;  // of bytes: x in as many digits as it takes, not one
  std::vector<int32_t> place_of_row, column_at;  // of whole registers
  std::vector<PanelRun> runs;
  std::vector<int32_t> block_of;  // run after run
  AlignedVector<uint8_t> units;  // unit after unit: 64 bytes of index, 64 values
  std::vector<int32_t> sums;  // of each row's values in units: first digits of x have an offset of 128
  SparseSlices<T, Index> rest;

  int most_singly() const { return exact ? 3 : 5; }  // of more lanes, rows take less time
  int panels() const { return (columns + kWidth - 1) / kWidth; }
  int blocks() const { return (rows + kHeight - 1) / kHeight; }
  size_t bytes() const {
    const size_t order = (place_of_row.size() + column_at.size()) * 4;
    return order + runs.size() * sizeof(PanelRun) + block_of.size() * 4 + units.size() + sums.size() * 4 + rest.bytes();
  }

  // Entries in the order of rows.
  static SparsePanels from(std::vector<Entry<T, Index>> entries, int rows, int columns, bool exact) {
    SparsePanels result;
    result.exact = exact;
    result.rows = rows;
    result.columns = columns;
    if (entries.empty()) return result;
    result.put_in_order(entries);
    std::vector<size_t> next(static_cast<size_t>(rows) + 1);
    for (const auto& entry : entries) ++next[entry.row + 1];
    for (int r = 0; r < rows; ++r) next[r + 1] += next[r];
    const std::vector<size_t> ends(next.begin() + 1, next.end());
    std::vector<Entry<T, Index>> rest;
    for (int panel = 0; panel < result.panels(); ++panel) result.fill_panel(entries, next, ends, panel, rest);
    const std::vector<int32_t> row_at = inverse(result.place_of_row, rows);
    for (auto& entry : rest) {
      entry.row = row_at[entry.row];
      entry.column = static_cast<Index>(result.column_at[entry.column]);
    }
    std::stable_sort(rest.begin(), rest.end(), [](const auto& a, const auto& b) { return a.row < b.row; });
    result.rest = SparseSlices<T, Index>::from(rest);
    if (Bytes) {
      result.sums.assign(static_cast<size_t>(result.blocks()) * kHeight, 0);
      result.each_in_units([&](int place, int, T value) { result.sums[place] += static_cast<int32_t>(value); });
    }
    result.units.shrink_to_fit();
    return result;
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    if (place_of_row.empty()) return;
    const std::vector<int32_t> row_at = inverse(place_of_row, rows);
    each_in_units([&](int place, int column_place, T value) {
      f(row_at[place], static_cast<Index>(column_at[column_place]), value);
    });
    rest.each(f);
  }

  // y += scale[row] · (this x). False where bytes cannot stand for x (a value that is not finite).
  bool apply(const float* scales, const float* x, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    if (place_of_row.empty()) return true;  // there is nothing
    if (!apply_units(scales, x, y, arena)) return false;
    rest.apply(scales, x, y);
    return true;
  }

 private:
  // The row within its block of the k-th slot of a unit, and where its index lies: of floats, a register holds the
  // indices of four groups of 16 rows, a byte each.
  static int row_of(int k) { return Bytes ? k / 4 : k; }
  static int index_place(int k) { return Bytes ? k : k % 16 * 4 + k / 16; }

  template <class F>
  void each_in_units(F f) const {
    const uint8_t* unit = units.data();
    const int32_t* block = block_of.data();
    for (const PanelRun& run : runs)
      for (int b = 0; b < run.blocks; ++b, ++block)
        for (int n = 0; n < run.units; ++n, unit += kUnitBytes)
          for (int k = 0; k < 64; ++k) {
            const T value = reinterpret_cast<const T*>(unit + 64)[k];
            if (value != T{0})
              f(*block * kHeight + row_of(k), run.panel * kWidth + unit[index_place(k)], value);
          }
  }

  // Indices in the order of falling counts.
  static std::vector<int32_t> order_of(const std::vector<int>& counts) {
    std::vector<int32_t> order(counts.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
    return order;
  }
  static std::vector<int32_t> inverse(const std::vector<int32_t>& order, int count) {
    std::vector<int32_t> result(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) result[order[i]] = i;
    return result;
  }

  // Gives entries their places for rows and columns.
  void put_in_order(std::vector<Entry<T, Index>>& entries) {
    std::vector<int> in_column(static_cast<size_t>(columns));
    for (const auto& entry : entries) ++in_column[entry.column];
    column_at = order_of(in_column);
    const std::vector<int32_t> place_of_column = inverse(column_at, columns);
    for (auto& entry : entries) entry.column = static_cast<Index>(place_of_column[entry.column]);
    std::vector<int> in_row(static_cast<size_t>(rows));
    for (const auto& entry : entries) ++in_row[entry.row];
    place_of_row = inverse(Bytes ? alike(entries, order_of(in_row)) : order_of(in_row), rows);
    for (auto& entry : entries) entry.row = place_of_row[entry.row];
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return a.row != b.row ? a.row < b.row : a.column < b.column;
    });
    place_of_row.resize((place_of_row.size() + 15) / 16 * 16);
    column_at.resize((column_at.size() + 15) / 16 * 16);
  }

  // Rows in an order that puts those into a block that need like numbers of units in each panel: the first that is left,
  // then, again and again, the one of the next few hundred that leaves the fewest slots empty.
  std::vector<int32_t> alike(const std::vector<Entry<T, Index>>& entries, std::vector<int32_t> left) const {
    constexpr size_t kWindow = 512;
    constexpr int kMore = 4;  // a unit more, which other rows of the block may need too, counts as so many for this row in vain
    const size_t width = static_cast<size_t>(panels());
    std::vector<int16_t> needed(static_cast<size_t>(rows) * width), block(width);
    for (const auto& entry : entries) ++needed[entry.row * width + entry.column / kWidth];
    for (int16_t& units : needed) units = static_cast<int16_t>((units + kEach - 1) / kEach);
    std::vector<int32_t> order;
    while (!left.empty()) {
      const auto end = left.begin() + static_cast<std::ptrdiff_t>(std::min(kWindow, left.size()));
      std::fill(block.begin(), block.end(), int16_t{0});
      for (auto best = left.begin(); best != end;) {
        const int16_t* of_best = &needed[*best * width];
        for (size_t p = 0; p < width; ++p) block[p] = std::max(block[p], of_best[p]);
        order.push_back(std::exchange(*best, -1));
        if (order.size() % kHeight == 0) break;
        best = end;
        int least = std::numeric_limits<int>::max();
        for (auto row = left.begin(); row != end; ++row) {
          if (*row < 0) continue;
          int cost = 0;
          for (size_t p = 0; p < width; ++p) {
            const int more = needed[*row * width + p] - block[p];
            cost += more > 0 ? kMore * more : -more;
          }
          if (cost < least) best = row, least = cost;
        }
      }
      left.erase(std::remove(left.begin(), end, -1), end);
    }
    return order;
  }

  void fill_panel(const std::vector<Entry<T, Index>>& entries, std::vector<size_t>& next,
                  const std::vector<size_t>& ends, int panel, std::vector<Entry<T, Index>>& rest) {
    std::vector<int> here(static_cast<size_t>(blocks()) * kHeight), order;
    for (int row = 0; row < rows; ++row) {
      size_t i = next[row];
      while (i < ends[row] && static_cast<int>(entries[i].column) < (panel + 1) * kWidth) ++i;
      here[row] = static_cast<int>(i - next[row]);
    }
    std::vector<int> needed;
    for (int block = 0; block < blocks(); ++block) {
      needed.push_back(best_units(here.data() + static_cast<size_t>(block) * kHeight));
      order.push_back(block);
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return needed[a] > needed[b]; });
    for (int block : order) {
      if (needed[block] > 0) {
        if (runs.empty() || runs.back().panel != panel || runs.back().units != needed[block])
          runs.push_back({panel, needed[block], 0});
        ++runs.back().blocks;
        block_of.push_back(block);
      }
      fill_block(entries, next, here.data(), panel, block, needed[block], rest);
    }
  }

  void fill_block(const std::vector<Entry<T, Index>>& entries, std::vector<size_t>& next, const int* here, int panel,
                  int block, int count, std::vector<Entry<T, Index>>& rest) {
    const size_t start = units.size();
    units.resize(start + static_cast<size_t>(count) * kUnitBytes);
    for (int row = block * kHeight; row < std::min(rows, (block + 1) * kHeight); ++row)
      for (int n = 0; n < here[row]; ++n) {
        const auto& entry = entries[next[row]++];
        if (n >= count * kEach) {
          rest.push_back(entry);
          continue;
        }
        const int k = (row - block * kHeight) * kEach + n % kEach;
        uint8_t* unit = units.data() + start + static_cast<size_t>(n / kEach) * kUnitBytes;
        unit[index_place(k)] = static_cast<uint8_t>(static_cast<int>(entry.column) - panel * kWidth);
        reinterpret_cast<T*>(unit + 64)[k] = entry.value;
      }
  }

  // In cycles, measured.
  static constexpr double kUnit = Bytes ? 6.0 : 11.0, kSliced = 1.5;
  static int best_units(const int* here) {
    const int most = *std::max_element(here, here + kHeight);
    int best = 0;
    double least = 1e30;
    for (int units = 0; units <= (most + kEach - 1) / kEach; ++units) {
      double cost = units * kUnit;
      for (int r = 0; r < kHeight; ++r) cost += kSliced * std::max(0, here[r] - units * kEach);
      if (cost < least) best = units, least = cost;
    }
    return best;
  }

  bool apply_units(const float* scales, const float* x, float* y, Arena& arena) const;
};

#if defined(__AVX512F__) && defined(__AVX512BW__)

// 64 slots of a unit in four groups of 16 rows.
template <class T>
inline void float_units(const std::vector<PanelRun>& runs, const int32_t* block, const uint8_t* unit, const float* x,
                        float* totals) {
  for (const PanelRun& run : runs) {
    const __m512 low = _mm512_load_ps(x + run.panel * 32), high = _mm512_load_ps(x + run.panel * 32 + 16);
    for (int k = 0; k < run.blocks; ++k) {
      float* total = totals + static_cast<size_t>(*block++) * 64;
      Vec<16> a = load<16>(total), b = load<16>(total + 16), c = load<16>(total + 32), d = load<16>(total + 48);
      for (int n = run.units; n > 0; --n, unit += 64 + 64 * sizeof(T)) {
        _mm_prefetch(unit + 1024, _MM_HINT_T0);  // a twentieth faster; values of floats come fast enough by themselves
        if (sizeof(T) == 1) _mm_prefetch(unit + 1088, _MM_HINT_T0);
        // The permute reads 5 bits of a lane: what lies above them, of the other groups, does not matter.
        const __m512i i = _mm512_load_si512(unit);
        const T* value = reinterpret_cast<const T*>(unit + 64);
        a += (Vec<16>)_mm512_permutex2var_ps(low, i, high) * widen<16>(value);
        b += (Vec<16>)_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 8), high) * widen<16>(value + 16);
        c += (Vec<16>)_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 16), high) * widen<16>(value + 32);
        d += (Vec<16>)_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 24), high) * widen<16>(value + 48);
      }
      store<16>(total, a);
      store<16>(total + 16, b);
      store<16>(total + 32, c);
      store<16>(total + 48, d);
    }
  }
}

#else

template <class T>
inline void float_units(const std::vector<PanelRun>&, const int32_t*, const uint8_t*, const float*, float*) {}

#endif

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

// Sums of the first digits in `totals`; of all others, the last one counting 1, in `lower`.
template <int D>
inline void byte_units(const std::vector<PanelRun>& runs, const int32_t* block, const uint8_t* unit, uint8_t* const* x,
                       int32_t* totals, float* lower) {
  for (const PanelRun& run : runs) {
    __m512i table[D][4];
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d)
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) table[d][k] = _mm512_load_si512(x[d] + run.panel * 256 + k * 64);
    for (int k = 0; k < run.blocks; ++k) {
      const size_t to = static_cast<size_t>(*block++) * 16;
      __m512i total[D] = {_mm512_load_si512(totals + to)};
#pragma GCC unroll 4
      for (int d = 1; d < D; ++d) total[d] = _mm512_setzero_si512();
      for (int n = run.units; n > 0; --n, unit += 128) {
        _mm_prefetch(unit + 1024, _MM_HINT_T0);
        _mm_prefetch(unit + 1088, _MM_HINT_T0);
        // 6 bits of an index choose within a register, two more the register.
        const __m512i i = _mm512_load_si512(unit), values = _mm512_load_si512(unit + 64);
        const __mmask64 second = _mm512_movepi8_mask(i), odd = _mm512_movepi8_mask(_mm512_add_epi8(i, i));
#pragma GCC unroll 4
        for (int d = 0; d < D; ++d) {
          const __m512i(&from)[4] = table[d];
          __m512i u = _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(i, from[0]), odd, i, from[1]);
          if constexpr (D == 1) {  // in two halves, as there is nothing else to do while a permute takes its time
            const __m512i v = _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(i, from[2]), odd, i, from[3]);
            u = _mm512_mask_mov_epi8(u, second, v);
          } else {
            u = _mm512_mask_permutexvar_epi8(u, second, i, from[2]);
            u = _mm512_mask_permutexvar_epi8(u, _kand_mask64(second, odd), i, from[3]);
          }
          total[d] = _mm512_dpbusd_epi32(total[d], u, values);
        }
      }
      _mm512_store_si512(totals + to, total[0]);
      if constexpr (D > 1) {
        __m512 sum = _mm512_cvtepi32_ps(total[1]);
#pragma GCC unroll 4
        for (int d = 2; d < D; ++d) sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(total[d]));
        _mm512_store_ps(lower + to, _mm512_add_ps(_mm512_load_ps(lower + to), sum));
      }
    }
  }
}

#endif

inline Vec<W> from_places(const float* values, const int32_t* places) {
#if defined(__AVX512F__)
  return (Vec<W>)_mm512_i32gather_ps(_mm512_loadu_si512(places), values, 4);
#else
  Vec<W> v{};
  for (int lane = 0; lane < W; ++lane) v[lane] = values[places[lane]];
  return v;
#endif
}

template <class T, class Index, bool Bytes>
bool SparsePanels<T, Index, Bytes>::apply_units(const float* scales, const float* x, float* y, Arena& arena) const {
  const size_t padded = static_cast<size_t>(panels()) * kWidth, height = static_cast<size_t>(blocks()) * kHeight;
  float* ordered = arena.take<float>(padded);
  for (int k = 0; k < columns; k += W) store<W>(ordered + k, from_places(x, column_at.data() + k));
  float* totals = arena.take<float>(height);
  // y += scale · totals
  const auto put = [&](float scale) {
    for (int r = 0; r < rows; r += W) {
      const int count = std::min(W, rows - r);
      Vec<W> unit = all<W>(scale);
      if (scales != nullptr) unit *= load_first(scales + r, count);
      const Vec<W> total = from_places(totals, place_of_row.data() + r);
      store_first(y + r, load_first(y + r, count) + unit * total, count);
    }
  };
  if constexpr (!Bytes) {
    std::memset(ordered + columns, 0, sizeof(float) * (padded - columns));
    std::memset(totals, 0, sizeof(float) * height);
    float_units<T>(runs, block_of.data(), units.data(), ordered, totals);
    put(1.0f);
  } else {
#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
    uint8_t* bytes[kMostDigits];
    for (uint8_t*& digit : bytes) digit = arena.take<uint8_t>(padded);
    const int32_t edges[] = {0, columns};
    const Strips strip{edges, 1, static_cast<int>(padded)};
    float* room = arena.take<float>(padded);
    int32_t* first = arena.take<int32_t>(height);
    for (bool all = false; !all;) {
      const Digits digits = exact ? Digits::enough(ordered, strip, bytes, room) : Digits::one(ordered, strip, bytes);
      if (digits.count == 0) return false;
      all = digits.all;
      for (size_t r = 0; r < height; ++r) first[r] = -kByteZero * sums[r];
      if (digits.count > 1) std::memset(totals, 0, sizeof(float) * height);
      const auto units_of = [&](auto count) {
        if (digits.count == count) byte_units<count>(runs, block_of.data(), units.data(), bytes, first, totals);
      };
      units_of(std::integral_constant<int, 1>());
      units_of(std::integral_constant<int, 3>());
      units_of(std::integral_constant<int, 4>());
      const float place = std::ldexp(1.0f, 8 * (digits.count - 1));  // what the first digit counts
      for (size_t r = 0; r < height; r += 16) {
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(first + r));
        _mm512_store_ps(totals + r,
                        digits.count == 1 ? sum : _mm512_fmadd_ps(sum, _mm512_set1_ps(place), _mm512_load_ps(totals + r)));
      }
      put(digits.scale);
    }
#endif
  }
  return true;
}

}  // namespace dopant
