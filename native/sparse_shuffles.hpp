// A sparse matrix whose non-zeros spread evenly, in banks (banks.hpp), of 8-bit values, for `fast` with AVX2.
//
// One lane of x is rounded to bytes, and looked up in registers. A unit is what 8 rows have in a bank of 128 columns at most: 32
// slots, a byte of local column index and a value each. A shuffle chooses one of 16 bytes by the lowest bits of an index, and
// gives 0 if that is negative. Table k is the k-th 16 bytes of x xor the (k-1)-th. Looked up with index - 16 k, tables 0 to
// index / 16 each give their byte at index % 16, and these xor to that of x; in later tables the index is negative. Of many
// lanes every non-zero is a multiply-accumulate of floats (sparse_lanes.hpp), as with gaps: bytes would be no faster.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "arena.hpp"
#include "banks.hpp"
#include "bytes.hpp"
#include "sparse_gaps.hpp"
#include "sparse_lanes.hpp"

namespace dopant {

#if defined(__AVX2__) && !defined(__AVX512F__)

struct SparseShuffles {
  static constexpr int kHeight = 8;  // rows of a unit
  static constexpr int kEach = Banks::kEach;  // slots of a row in a unit
  static constexpr int kTable = 16;  // bytes
  static constexpr int kMostTables = 8;  // of a bank: no index is negative
  static constexpr size_t kUnitBytes = 64;

  int rows = 0;
  Banks banks;
  int tables = 0;                 // of a bank
  AlignedVector<uint8_t> units;   // block after block of rows, bank after bank: 32 bytes of index, 32 values
  AlignedVector<int32_t> begins;  // what each row's sum begins with, as bytes of x have an offset
  SparseGaps<int8_t> rest;

  int most_singly() const { return 6; }
  int blocks() const { return (rows + kHeight - 1) / kHeight; }
  size_t bytes() const { return (banks.edges.size() + begins.size()) * 4 + units.size() + rest.bytes(); }

  // Entries in the order of rows. None if x is not to be rounded, or if slots and what is left over are more than an eighth more
  // than they are: of sixteen lanes and more each takes a multiply-accumulate.
  static std::optional<SparseShuffles> from(const std::vector<Entry<int8_t>>& entries, int rows, int columns, bool exact) {
    if (exact) return std::nullopt;
    const size_t a_bank = static_cast<size_t>((rows + kHeight - 1) / kHeight * kHeight * kEach);
    auto banks = Banks::of(entries, rows, columns, kMostTables * kTable, [=, &entries](const Banks& some, size_t left) {
      return a_bank * some.count() + left <= entries.size() + entries.size() / 8;
    });
    if (!banks) return std::nullopt;
    SparseShuffles result(rows, std::move(*banks));
    result.fill(entries);
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
    const auto scale_of = [=](int row) { return scales == nullptr ? 1.0f : scales[row]; };
    const float most = largest_size(x, banks.columns());
    if (most == 0.0f) return;
    if (!std::isfinite(most))  // no bytes can stand for it
      return each_in_units([&](int row, uint16_t column, int8_t value) { y[row] += scale_of(row) * value * x[column]; });
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const float scale = most > 1e-30f ? most / 127.0f : 1.0f;
    float* sums = arena.take<float>(begins.size());
    multiply(tables_of(x, 1.0f / scale, arena), scale, sums);
    for (int row = 0; row < rows; ++row) y[row] += scale_of(row) * sums[row];
  }

  // The same of y (rows, lanes) and x (columns, lanes), of less than 2^31 numbers; x is not rounded.
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    rest.apply_lanes(scales, x, y, lanes);
    alignas(64) int32_t offsets[SixteenRows::kTogether * SixteenRows::kRows];
    alignas(64) float numbers[SixteenRows::kTogether * SixteenRows::kRows];
    constexpr int kTogether = SixteenRows::kTogether / kEach;  // banks
    for (int block = 0; block < blocks(); block += 2) {
      int32_t places[SixteenRows::kRows];
      for (int n = 0; n < SixteenRows::kRows; ++n) places[n] = block * kHeight + n < rows ? block * kHeight + n : -1;
      for (int first = 0; first < banks.count(); first += kTogether) {
        const int some = std::min(kTogether, banks.count() - first);
        for (int half = 0; half < 2; ++half)
          for (int k = 0; k < some; ++k) {
            const int at = k * kEach * SixteenRows::kRows + half * kHeight;
            write_unit(block + half, first + k, lanes, offsets + at, numbers + at);
          }
        SixteenRows{places, some * kEach, offsets, numbers, scales, lanes}.apply(x, y, lanes);
      }
    }
  }

 private:
  SparseShuffles(int rows, Banks banks)
      : rows(rows), banks(std::move(banks)), tables((this->banks.widest() + kTable - 1) / kTable) {}

  // Values lie as the products want them: the first half of the slots of either half of a register, then the second.
  static constexpr int place_of_value(int slot) { return 32 + slot % 16 / 8 * 16 + slot / 16 * 8 + slot % 8; }

  void fill(const std::vector<Entry<int8_t>>& entries) {
    units.assign(static_cast<size_t>(blocks()) * banks.count() * kUnitBytes, 0);
    begins.assign(static_cast<size_t>(blocks()) * kHeight, 0);
    std::vector<Entry<int8_t>> left;
    banks.each_placed(entries, [&](const auto& entry, int bank, int n) {
      if (n >= kEach) return left.push_back(entry);
      uint8_t* unit = units.data() + (static_cast<size_t>(entry.row / kHeight) * banks.count() + bank) * kUnitBytes;
      const int slot = entry.row % kHeight * kEach + n;
      unit[slot] = static_cast<uint8_t>(static_cast<int32_t>(entry.column) - banks.edges[bank]);
      unit[place_of_value(slot)] = static_cast<uint8_t>(entry.value);
      begins[entry.row] -= kByteZero * static_cast<int32_t>(entry.value);
    });
    rest = SparseGaps<int8_t>::from(left);
  }

  template <class F>
  void each_in_units(F f) const {
    const uint8_t* unit = units.data();
    for (int block = 0; block < blocks(); ++block)
      for (int bank = 0; bank < banks.count(); ++bank, unit += kUnitBytes)
        for (int slot = 0; slot < kHeight * kEach; ++slot)
          if (const auto value = static_cast<int8_t>(unit[place_of_value(slot)]); value != 0)
            f(block * kHeight + slot / kEach, static_cast<uint16_t>(banks.edges[bank] + unit[slot]), value);
  }

  // Of 8 rows, slot after slot, 16 numbers apart: where x is for it, of so many lanes, and its value, which is zero beyond the last
  // block.
  void write_unit(int block, int bank, int lanes, int32_t* offsets, float* numbers) const {
    __m256i index = _mm256_setzero_si256(), values = index;
    if (block < blocks()) {
      const uint8_t* unit = units.data() + (static_cast<size_t>(block) * banks.count() + bank) * kUnitBytes;
      index = _mm256_load_si256(reinterpret_cast<const __m256i*>(unit));
      values = _mm256_permute4x64_epi64(_mm256_load_si256(reinterpret_cast<const __m256i*>(unit + 32)), 0xd8);
    }
    const __m256i edge = _mm256_set1_epi32(banks.edges[bank]), times = _mm256_set1_epi32(lanes);
    each_slot(index, [&](int slot, __m128i bytes) {
      const __m256i column = _mm256_add_epi32(_mm256_cvtepu8_epi32(bytes), edge);
      _mm256_store_si256(reinterpret_cast<__m256i*>(offsets + slot * SixteenRows::kRows), _mm256_mullo_epi32(column, times));
    });
    each_slot(values, [&](int slot, __m128i bytes) {
      _mm256_store_ps(numbers + slot * SixteenRows::kRows, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
    });
  }

  // f(slot, a byte of each of 8 rows) of the bytes of a unit, row by row.
  template <class F>
  static void each_slot(__m256i rows, F f) {
    // 4 × 4 transposed, within each half, then the halves' parts of each slot beside each other.
    const __m256i fours = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i slots = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(rows, fours), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m128i first = _mm256_castsi256_si128(slots), second = _mm256_extracti128_si256(slots, 1);
    f(0, first);
    f(1, _mm_srli_si128(first, 8));
    f(2, second);
    f(3, _mm_srli_si128(second, 8));
  }

  // The tables of x · factor, whole numbers of a byte, bank by bank.
  const uint8_t* tables_of(const float* x, float factor, Arena& arena) const {
    uint8_t* const all = arena.take<uint8_t>(static_cast<size_t>(banks.count()) * tables * kTable);
    uint8_t* to = all;
    const auto eight = [&](const float* from, int left) {
      const Vec<8> numbers = left >= 8 ? load<8>(from) : left > 0 ? load_first(from, left) : Vec<8>{};
      return _mm256_cvtps_epi32((__m256)(numbers * factor));
    };
    for (int bank = 0; bank < banks.count(); ++bank) {
      const float* from = x + banks.edges[bank];
      int left = banks.edges[bank + 1] - banks.edges[bank];
      __m128i before = _mm_setzero_si128();
      for (int table = 0; table < tables; ++table, to += kTable, from += kTable, left -= kTable) {
        const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(eight(from, left), eight(from + 8, left - 8)), 0xd8);
        const __m128i whole = _mm_packs_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
        const __m128i bytes = _mm_xor_si128(whole, _mm_set1_epi8(static_cast<char>(kByteZero)));  // plus the offset
        _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm_xor_si128(bytes, before));
        before = bytes;
      }
    }
    return all;
  }

  void multiply(const uint8_t* bytes, float scale, float* sums) const {
    switch (tables) {
      case 1: return multiply_units<1>(bytes, scale, sums);
      case 2: return multiply_units<2>(bytes, scale, sums);
      case 3: return multiply_units<3>(bytes, scale, sums);
      case 4: return multiply_units<4>(bytes, scale, sums);
      case 5: return multiply_units<5>(bytes, scale, sums);
      case 6: return multiply_units<6>(bytes, scale, sums);
      case 7: return multiply_units<7>(bytes, scale, sums);
      default: return multiply_units<8>(bytes, scale, sums);
    }
  }

  // sums (blocks of 8 rows) = scale · (units · x), of T tables a bank.
  template <int T>
  __attribute__((noinline)) void multiply_units(const uint8_t* bytes, float scale, float* sums) const {
    static_assert(T <= kMostTables);
    const __m256i zero = _mm256_setzero_si256(), next = _mm256_set1_epi8(kTable);
    const auto load_half = [](const uint8_t* from) { return _mm_load_si128(reinterpret_cast<const __m128i*>(from)); };
    const uint8_t* unit = units.data();
    for (size_t row = 0; row < begins.size(); row += kHeight) {
      __m256i lower = zero, upper = zero;
      const uint8_t* table = bytes;
      for (int bank = 0; bank < banks.count(); ++bank, unit += kUnitBytes) {
        __m256i index = _mm256_load_si256(reinterpret_cast<const __m256i*>(unit)), x = zero;
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t, table += kTable) {
          x = _mm256_xor_si256(x, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_half(table)), index));
          index = _mm256_sub_epi8(index, next);
        }
        // Pairs of 16 bits: those of bytes would exceed them.
        const __m256i values = _mm256_cvtepi8_epi16(load_half(unit + 32)), others = _mm256_cvtepi8_epi16(load_half(unit + 48));
        lower = _mm256_add_epi32(lower, _mm256_madd_epi16(_mm256_unpacklo_epi8(x, zero), values));
        upper = _mm256_add_epi32(upper, _mm256_madd_epi16(_mm256_unpackhi_epi8(x, zero), others));
      }
      const __m256i begin = _mm256_load_si256(reinterpret_cast<const __m256i*>(begins.data() + row));
      const __m256i total = _mm256_add_epi32(begin, _mm256_hadd_epi32(lower, upper));
      store<8>(sums + row, scale * (Vec<8>)_mm256_cvtepi32_ps(total));
    }
  }
};

#endif

}  // namespace dopant
