// How a sparse matrix is put into panels (sparse_panels.hpp): which places rows and columns take, how many slots each block has,
// and what is left over.
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "layout.hpp"
#include "sparse_panels_kernels.hpp"
#include "sparse_rows.hpp"

namespace dopant {

template <class T, class Index, bool Bytes>
struct PackedPanels {
  static constexpr int kWidth = Bytes ? 256 : 32;  // columns of a panel
  static constexpr int kHeight = Bytes ? 16 : 64;  // rows of a block
  static constexpr int kEach = Bytes ? 4 : 1;      // slots of a row in a unit of 64
  static constexpr size_t kUnitBytes = 64 + 64 * sizeof(T);

  int rows = 0, columns = 0;
  std::vector<int32_t> place_of_row, column_at;  // of whole registers; none where there are no entries
  std::vector<PanelRun> runs;
  std::vector<int32_t> block_of;  // run after run
  AlignedVector<uint8_t> units;  // unit after unit: 64 bytes of index, 64 values

  int panels() const { return (columns + kWidth - 1) / kWidth; }
  int blocks() const { return (rows + kHeight - 1) / kHeight; }
  size_t bytes() const {
    const size_t order = (place_of_row.size() + column_at.size()) * 4;
    return order + runs.size() * sizeof(PanelRun) + block_of.size() * 4 + units.size();
  }

  // Entries in the order of rows; `rest`: what is left over of them, likewise.
  static PackedPanels from(std::vector<Entry<T, Index>> entries, int rows, int columns, std::vector<Entry<T, Index>>& rest) {
    PackedPanels result;
    result.rows = rows;
    result.columns = columns;
    if (entries.empty()) return result;
    result.put_in_order(entries);
    std::vector<size_t> next(static_cast<size_t>(rows) + 1);
    for (const auto& entry : entries) ++next[entry.row + 1];
    for (int r = 0; r < rows; ++r) next[r + 1] += next[r];
    const std::vector<size_t> ends(next.begin() + 1, next.end());
    for (int panel = 0; panel < result.panels(); ++panel) result.fill_panel(entries, next, ends, panel, rest);
    const std::vector<int32_t> row_at = inverse(result.place_of_row, rows);
    for (auto& entry : rest) {
      entry.row = row_at[entry.row];
      entry.column = static_cast<Index>(result.column_at[entry.column]);
    }
    std::stable_sort(rest.begin(), rest.end(), [](const auto& a, const auto& b) { return a.row < b.row; });
    result.units.shrink_to_fit();
    return result;
  }

  // f(row, column, value) for every entry in the units that is not zero.
  template <class F>
  void each_in_units(F f) const {
    if (place_of_row.empty()) return;
    const std::vector<int32_t> row_at = inverse(place_of_row, rows);
    const uint8_t* unit = units.data();
    const int32_t* block = block_of.data();
    for (const PanelRun& run : runs)
      for (int b = 0; b < run.blocks; ++b, ++block)
        for (int n = 0; n < run.units; ++n, unit += kUnitBytes)
          for (int k = 0; k < 64; ++k) {
            const T value = reinterpret_cast<const T*>(unit + 64)[k];
            if (value == T{0}) continue;
            const int row = row_at[*block * kHeight + row_of(k)];
            f(row, static_cast<Index>(column_at[run.panel * kWidth + unit[index_place(k)]]), value);
          }
  }

 private:
  // The row within its block of the k-th slot of a unit, and where its index lies: of floats, a register holds the
  // indices of four groups of 16 rows, a byte each.
  static int row_of(int k) { return Bytes ? k / 4 : k; }
  static int index_place(int k) { return Bytes ? k : k % 16 * 4 + k / 16; }

  static std::vector<int32_t> inverse(const std::vector<int32_t>& order, int count) {
    std::vector<int32_t> result(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) result[order[i]] = i;
    return result;
  }
  // Indices in the order of falling counts.
  static std::vector<int32_t> order_of(const std::vector<int>& counts) {
    std::vector<int32_t> order(counts.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
    return order;
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
};

}  // namespace dopant
