// A sparse matrix whose non-zeros spread evenly, of 8-bit values, for one lane.
//
// Banks are equal strips of columns, so many that 4 non-zeros of each row fall into each (`per_bank` of a structure sees
// to that while training). A unit is what a block of 16 rows has in a bank: 64 slots, a byte of local column index and a
// value each. As every block has one unit in every bank, nothing needs an order or a list of its own, sums of a block
// stay in registers, and the digits of x (bytes.hpp) that a permute chooses from are as narrow as the bank: a register or
// two where the panels of any matrix (sparse_panels.hpp) take four. 64 slots are so many permutes and a dot instruction
// for each digit. What a row has in a bank beyond 4 is left to slices.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "bytes.hpp"
#include "sparse_slices.hpp"

namespace dopant {

template <class T, class Index>
struct SparseBanks {
  static constexpr int kHeight = 16;       // rows of a block
  static constexpr int kEach = 4;          // slots of a row in a unit
  static constexpr int kMostRegisters = 4;  // of a digit of x, in a bank: an index is a byte
  static constexpr size_t kUnitBytes = 128;

  int rows = 0, columns = 0;
  bool exact = false;          // x in as many digits as it takes, not one
  int registers = 0;           // of a digit of x, in a bank
  std::vector<int32_t> edges;  // of banks: their first columns, and the end
  AlignedVector<uint8_t> units;  // block after block, bank after bank: 64 bytes of index, 64 values
  AlignedVector<int32_t> sums;   // of each row's values in units: first digits of x have an offset of 128
  SparseSlices<T, Index> rest;

  int most_singly() const { return exact ? kFewExact : kFewFast; }  // of more lanes, rows take less time
  int banks() const { return static_cast<int>(edges.size()) - 1; }
  int blocks() const { return (rows + kHeight - 1) / kHeight; }
  size_t bytes() const { return (edges.size() + sums.size()) * 4 + units.size() + rest.bytes(); }

  // Entries in the order of rows. None if they do not spread so evenly that this is faster than panels.
  static std::optional<SparseBanks> from(const std::vector<Entry<T, Index>>& entries, int rows, int columns, bool exact) {
    if (entries.empty()) return std::nullopt;
    const size_t a_row = static_cast<size_t>(rows) * kEach, widest = kMostRegisters * 64;
    const size_t fewest = std::max((entries.size() + a_row - 1) / a_row, (columns + widest - 1) / widest);
    // One more: a few entries may have been dropped after training.
    for (size_t banks = fewest; banks <= std::min<size_t>(fewest + 1, columns); ++banks) {
      SparseBanks result(rows, columns, static_cast<int>(banks), exact);
      if (!result.suits(entries)) continue;
      result.fill(entries);
      return result;
    }
    return std::nullopt;
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    each_in_units(f);
    rest.each(f);
  }

  // y += scale[row] · (this x). False where bytes cannot stand for x (a value that is not finite).
  bool apply(const float* scales, const float* x, float* y) const {
    if (!apply_units(scales, x, y)) return false;
    rest.apply(scales, x, y);
    return true;
  }

 private:
  SparseBanks(int rows, int columns, int banks, bool exact) : rows(rows), columns(columns), exact(exact) {
    for (int bank = 0; bank <= banks; ++bank)
      edges.push_back(static_cast<int32_t>(static_cast<int64_t>(bank) * columns / banks));
    registers = ((columns + banks - 1) / banks + 63) / 64;
  }

  // f(entry, bank, how many of its row came before it in this bank).
  template <class F>
  void each_placed(const std::vector<Entry<T, Index>>& entries, F f) const {
    int row = -1, bank = 0, n = 0;
    for (const auto& entry : entries) {
      if (entry.row != row) row = entry.row, bank = 0, n = 0;
      while (static_cast<int32_t>(entry.column) >= edges[bank + 1]) ++bank, n = 0;
      f(entry, bank, n++);
    }
  }

  // In cycles, measured: a unit here, one of panels, of which a quarter is filled up at best, and an entry of slices.
  bool suits(const std::vector<Entry<T, Index>>& entries) const {
    const double unit = 2.0 + registers, in_panels = 6.0 * 1.25 / 64.0, sliced = 1.5;
    double left = 0.0;
    each_placed(entries, [&](const auto&, int, int n) { left += n >= kEach; });
    return blocks() * banks() * unit + left * sliced <= static_cast<double>(entries.size()) * in_panels;
  }

  void fill(const std::vector<Entry<T, Index>>& entries) {
    units.assign(static_cast<size_t>(blocks()) * banks() * kUnitBytes, 0);
    sums.assign(static_cast<size_t>(blocks()) * kHeight, 0);
    std::vector<Entry<T, Index>> left;
    each_placed(entries, [&](const auto& entry, int bank, int n) {
      if (n >= kEach) return left.push_back(entry);
      uint8_t* unit = units.data() + (static_cast<size_t>(entry.row / kHeight) * banks() + bank) * kUnitBytes;
      const int k = entry.row % kHeight * kEach + n;
      unit[k] = static_cast<uint8_t>(static_cast<int32_t>(entry.column) - edges[bank]);
      reinterpret_cast<T*>(unit + 64)[k] = entry.value;
      sums[entry.row] += static_cast<int32_t>(entry.value);
    });
    rest = SparseSlices<T, Index>::from(left);
  }

  template <class F>
  void each_in_units(F f) const {
    const uint8_t* unit = units.data();
    for (int block = 0; block < blocks(); ++block)
      for (int bank = 0; bank < banks(); ++bank, unit += kUnitBytes)
        for (int k = 0; k < 64; ++k) {
          const T value = reinterpret_cast<const T*>(unit + 64)[k];
          if (value != T{0}) f(block * kHeight + k / kEach, static_cast<Index>(edges[bank] + unit[k]), value);
        }
  }

  bool apply_units(const float* scales, const float* x, float* y) const;

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
  // Sums of each digit += a unit's products.
  template <int D, int R>
  __attribute__((always_inline)) static void add(const uint8_t* unit, uint8_t* const* digits, size_t from,
                                                 __m512i (&total)[D]) {
    _mm_prefetch(unit + 1024, _MM_HINT_T0);
    _mm_prefetch(unit + 1088, _MM_HINT_T0);
    // 6 bits of an index choose within a register, two more the register.
    const __m512i i = _mm512_load_si512(unit), values = _mm512_load_si512(unit + 64);
    const __mmask64 odd = R > 1 ? _mm512_movepi8_mask(_mm512_add_epi8(i, i)) : 0;
    const __mmask64 upper = R > 2 ? _mm512_movepi8_mask(i) : 0;
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d) {
      const uint8_t* x = digits[d] + from;
      __m512i u = _mm512_permutexvar_epi8(i, _mm512_load_si512(x));
      if constexpr (R > 1) u = _mm512_mask_permutexvar_epi8(u, odd, i, _mm512_load_si512(x + 64));
      if constexpr (R > 2) u = _mm512_mask_permutexvar_epi8(u, upper, i, _mm512_load_si512(x + 128));
      if constexpr (R > 3) u = _mm512_mask_permutexvar_epi8(u, _kand_mask64(upper, odd), i, _mm512_load_si512(x + 192));
      total[d] = _mm512_dpbusd_epi32(total[d], u, values);
    }
  }

  // y += scale · scales[row] · (this digits), of D digits in R registers a bank, the last digit counting 1.
  template <int D, int R>
  void multiply(uint8_t* const* digits, float scale, const float* scales, float* y) const {
    const uint8_t* unit = units.data();
    const int count = banks();
    const __m512 place = _mm512_set1_ps(256.0f), whole = _mm512_set1_ps(scale);
    for (int r = 0; r < rows; r += kHeight) {
      __m512i total[D];
      total[0] = _mm512_mullo_epi32(_mm512_load_si512(sums.data() + r), _mm512_set1_epi32(-kByteZero));
#pragma GCC unroll 4
      for (int d = 1; d < D; ++d) total[d] = _mm512_setzero_si512();
      __m512i again[D];  // sums of every other bank: of one chain a processor would have to wait for each link
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) again[d] = _mm512_setzero_si512();
      size_t from = 0;
      for (int bank = 0; bank + 2 <= count; bank += 2, from += 2 * R * 64, unit += 2 * kUnitBytes) {
        add<D, R>(unit, digits, from, total);
        add<D, R>(unit + kUnitBytes, digits, from + R * 64, again);
      }
      if (count % 2 != 0) {
        add<D, R>(unit, digits, from, total);
        unit += kUnitBytes;
      }
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) total[d] = _mm512_add_epi32(total[d], again[d]);
      __m512 sum = _mm512_cvtepi32_ps(total[0]);
      if constexpr (D > 1) {
        // The first digit's sum has half of all numbers: it is added last.
        __m512 lower = _mm512_cvtepi32_ps(total[1]);
#pragma GCC unroll 4
        for (int d = 2; d < D; ++d) lower = _mm512_fmadd_ps(lower, place, _mm512_cvtepi32_ps(total[d]));
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(D == 3 ? 0x1p16f : 0x1p24f), lower);
      }
      const __mmask16 there = lanes_left(rows - r);
      const __m512 by = scales == nullptr ? whole : _mm512_mul_ps(whole, _mm512_maskz_loadu_ps(there, scales + r));
      _mm512_mask_storeu_ps(y + r, there, _mm512_fmadd_ps(by, sum, _mm512_maskz_loadu_ps(there, y + r)));
    }
  }

  template <int D>
  void multiply(uint8_t* const* digits, float scale, const float* scales, float* y) const {
    switch (registers) {
      case 1: return multiply<D, 1>(digits, scale, scales, y);
      case 2: return multiply<D, 2>(digits, scale, scales, y);
      case 3: return multiply<D, 3>(digits, scale, scales, y);
      default: return multiply<D, 4>(digits, scale, scales, y);
    }
  }
#endif
};

template <class T, class Index>
bool SparseBanks<T, Index>::apply_units(const float* scales, const float* x, float* y) const {
#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
  Arena& arena = Arena::of_this_thread();
  Arena::Scope scope(arena);
  const Strips strips{edges.data(), banks(), registers * 64};
  uint8_t* bytes[kMostDigits];
  for (uint8_t*& digit : bytes) digit = arena.take<uint8_t>(static_cast<size_t>(strips.count) * strips.room);
  if (!exact) {
    const Digits digits = Digits::one(x, strips, bytes);
    if (digits.count == 0) return false;
    multiply<1>(bytes, digits.scale, scales, y);
    return true;
  }
  float* left = arena.take<float>(static_cast<size_t>(columns));
  float* room = arena.take<float>(static_cast<size_t>(columns));
  std::memcpy(left, x, sizeof(float) * static_cast<size_t>(columns));
  for (bool all = false; !all;) {
    const Digits digits = Digits::enough(left, strips, bytes, room);
    if (digits.count == 0) return false;
    all = digits.all;
    if (digits.count == 3)
      multiply<3>(bytes, digits.scale, scales, y);
    else
      multiply<4>(bytes, digits.scale, scales, y);
  }
  return true;
#else
  (void)scales, (void)x, (void)y;
  return false;
#endif
}

}  // namespace dopant
