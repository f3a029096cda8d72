// How a sparse matrix is put into panels (sparse_panels.hpp): which places rows and columns take, how many slots each block has,
// and what is left over.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "arena.hpp"
#include "sparse_order.hpp"
#include "sparse_panels_kernels.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

struct PackedPanels {
  static constexpr int kWidth = 256;  // columns of a panel
  static constexpr int kHeight = 16;  // rows of a block
  static constexpr int kEach = 4;     // slots of a row in a unit of 64
  static constexpr size_t kUnitBytes = 128;

  SparseOrder order;  // empty where there are no entries
  std::vector<PanelRun> runs;
  std::vector<int32_t> block_of;  // run after run
  AlignedVector<uint8_t> units;  // unit after unit: 64 bytes of index, 64 values

  int panels() const { return (order.columns + kWidth - 1) / kWidth; }
  int blocks() const { return (order.rows + kHeight - 1) / kHeight; }
  size_t bytes() const { return order.bytes() + runs.size() * sizeof(PanelRun) + block_of.size() * 4 + units.size(); }

  // `rest`: what is left over of the entries.
  static PackedPanels from(std::vector<Entry<int8_t>> entries, int rows, int columns, std::vector<Entry<int8_t>>& rest) {
    PackedPanels result;
    if (entries.empty()) return result;
    result.order = SparseOrder::from(entries, rows, columns, [=](const auto& placed, auto by_count) {
      return alike(placed, std::move(by_count), (columns + kWidth - 1) / kWidth);
    });
    std::vector<size_t> next(static_cast<size_t>(rows) + 1);
    for (const auto& entry : entries) ++next[entry.row + 1];
    for (int r = 0; r < rows; ++r) next[r + 1] += next[r];
    const std::vector<size_t> ends(next.begin() + 1, next.end());
    for (int panel = 0; panel < result.panels(); ++panel) result.fill_panel(entries, next, ends, panel, rest);
    result.order.undo(rest);
    result.units.shrink_to_fit();
    return result;
  }

  // f(row, column, value) for every entry in the units that is not zero.
  template <class F>
  void each_in_units(F f) const {
    const std::vector<int32_t> row_at = inverse(order.place_of_row, order.rows);
    const uint8_t* unit = units.data();
    const int32_t* block = block_of.data();
    for (const PanelRun& run : runs)
      for (int b = 0; b < run.blocks; ++b, ++block)
        for (int n = 0; n < run.units; ++n, unit += kUnitBytes)
          for (int k = 0; k < 64; ++k) {
            const auto value = static_cast<int8_t>(unit[64 + k]);
            if (value == 0) continue;
            f(row_at[*block * kHeight + k / kEach], static_cast<uint16_t>(order.column_at[run.panel * kWidth + unit[k]]), value);
          }
  }

 private:
  // Rows in an order that puts those into a block that need like numbers of units in each panel: the first that is left,
  // then, again and again, the one of the next few hundred that leaves the fewest slots empty.
  static std::vector<int32_t> alike(const std::vector<Entry<int8_t>>& entries, std::vector<int32_t> left, int panels) {
    constexpr size_t kWindow = 512;
    constexpr int kMore = 4;  // a unit more, which other rows of the block may need too, counts as so many for this row in vain
    const size_t width = static_cast<size_t>(panels);
    std::vector<int16_t> needed(left.size() * width), block(width);
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

  void fill_panel(const std::vector<Entry<int8_t>>& entries, std::vector<size_t>& next,
                  const std::vector<size_t>& ends, int panel, std::vector<Entry<int8_t>>& rest) {
    std::vector<int> here(static_cast<size_t>(blocks()) * kHeight), by_units;
    for (int row = 0; row < order.rows; ++row) {
      size_t i = next[row];
      while (i < ends[row] && static_cast<int>(entries[i].column) < (panel + 1) * kWidth) ++i;
      here[row] = static_cast<int>(i - next[row]);
    }
    std::vector<int> needed;
    for (int block = 0; block < blocks(); ++block) {
      needed.push_back(best_units(here.data() + static_cast<size_t>(block) * kHeight));
      by_units.push_back(block);
    }
    std::stable_sort(by_units.begin(), by_units.end(), [&](int a, int b) { return needed[a] > needed[b]; });
    for (int block : by_units) {
      if (needed[block] > 0) {
        if (runs.empty() || runs.back().panel != panel || runs.back().units != needed[block])
          runs.push_back({panel, needed[block], 0});
        ++runs.back().blocks;
        block_of.push_back(block);
      }
      fill_block(entries, next, here.data(), panel, block, needed[block], rest);
    }
  }

  void fill_block(const std::vector<Entry<int8_t>>& entries, std::vector<size_t>& next, const int* here, int panel,
                  int block, int count, std::vector<Entry<int8_t>>& rest) {
    const size_t start = units.size();
    units.resize(start + static_cast<size_t>(count) * kUnitBytes);
    for (int row = block * kHeight; row < std::min(order.rows, (block + 1) * kHeight); ++row)
      for (int n = 0; n < here[row]; ++n) {
        const auto& entry = entries[next[row]++];
        if (n >= count * kEach) {
          rest.push_back(entry);
          continue;
        }
        const int k = (row - block * kHeight) * kEach + n % kEach;
        uint8_t* unit = units.data() + start + static_cast<size_t>(n / kEach) * kUnitBytes;
        unit[k] = static_cast<uint8_t>(static_cast<int>(entry.column) - panel * kWidth);
        unit[64 + k] = static_cast<uint8_t>(entry.value);
      }
  }

  // In cycles, measured; for what is left to gaps any number from 1 to 4 does as well.
  static constexpr double kUnit = 6.0, kLeft = 1.5;
  static int best_units(const int* here) {
    const int most = *std::max_element(here, here + kHeight);
    int best = 0;
    double least = 1e30;
    for (int units = 0; units <= (most + kEach - 1) / kEach; ++units) {
      double cost = units * kUnit;
      for (int r = 0; r < kHeight; ++r) cost += kLeft * std::max(0, here[r] - units * kEach);
      if (cost < least) best = units, least = cost;
    }
    return best;
  }
};

#endif

}  // namespace dopant
