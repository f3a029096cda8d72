// Banks: equal strips of columns, so many that 4 non-zeros of each row fall into each (`per_bank` of a structure sees to that
// while training). Then every row fills the same slots in every bank, and nothing needs an order or a list of its own.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "sparse_entry.hpp"

namespace dopant {

struct Banks {
  static constexpr int kEach = 4;  // slots of a row in a bank

  std::vector<int32_t> edges;  // their first columns, and the end

  Banks() = default;
  Banks(int columns, int count) {
    for (int64_t bank = 0; bank <= count; ++bank) edges.push_back(static_cast<int32_t>(bank * columns / count));
  }

  int columns() const { return edges.back(); }
  int count() const { return static_cast<int>(edges.size()) - 1; }
  int widest() const { return (columns() + count() - 1) / count(); }

  // Those that suits(banks, entries beyond the slots) accepts, of `most` columns each at most. Entries in the order of rows.
  template <class T, class F>
  static std::optional<Banks> of(const std::vector<Entry<T>>& entries, int rows, int columns, int most, F suits) {
    if (entries.empty()) return std::nullopt;
    const size_t a_row = static_cast<size_t>(rows) * kEach, widest = static_cast<size_t>(most);
    const size_t fewest = std::max((entries.size() + a_row - 1) / a_row, (columns + widest - 1) / widest);
    // One more: a few entries may have been dropped after training.
    for (size_t count = fewest; count <= std::min<size_t>(fewest + 1, columns); ++count) {
      Banks banks(columns, static_cast<int>(count));
      size_t left = 0;
      banks.each_placed(entries, [&](const auto&, int, int n) { left += n >= kEach; });
      if (suits(banks, left)) return banks;
    }
    return std::nullopt;
  }

  // f(entry, bank, how many of its row came before it in this bank).
  template <class T, class F>
  void each_placed(const std::vector<Entry<T>>& entries, F f) const {
    int row = -1, bank = 0, n = 0;
    for (const auto& entry : entries) {
      if (entry.row != row) row = entry.row, bank = 0, n = 0;
      while (static_cast<int32_t>(entry.column) >= edges[bank + 1]) ++bank, n = 0;
      f(entry, bank, n++);
    }
  }
};

}  // namespace dopant
