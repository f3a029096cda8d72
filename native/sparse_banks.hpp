// A sparse matrix whose non-zeros spread evenly, in banks (banks.hpp), of 8-bit values, for any number of lanes.
//
// A unit is what 16 rows have in a bank: 64 slots, a byte of local column index and a value each. Sums stay in registers, and
// the digits of x (bytes.hpp) that a permute chooses from are as narrow as the bank: a register or two where the panels of any
// matrix (sparse_panels.hpp) take four. 64 slots are one permute (of two registers at once) and one dot instruction for each
// digit. Four units of a bank, 64 rows, lie together and share the loads of x. Lanes come one after the other,
// while units are in the first-level cache: there is one form for a single lane and for many. What a row has in a bank
// beyond 4 is left to gaps.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "banks.hpp"
#include "byte_lanes.hpp"
#include "layout.hpp"
#include "sparse_gaps.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

struct SparseBanks {
  static constexpr int kHeight = 16;       // rows of a unit
  static constexpr int kUnits = 4;         // of a bank, that lie together
  static constexpr int kGroup = kUnits * kHeight;
  static constexpr int kEach = Banks::kEach;  // slots of a row in a unit
  static constexpr int kMostRegisters = 4;  // of a digit of x, in a bank: an index is a byte
  static constexpr size_t kUnitBytes = 128;

  int rows = 0;
  bool exact = false;  // x in as many digits as it takes, not one
  Banks banks;
  int registers = 0;  // of a digit of x, in a bank
  AlignedVector<uint8_t> units;  // group after group of rows, bank after bank: 64 bytes of index, 64 values, four times
  AlignedVector<int32_t> begins;  // what each row's sum of first digits begins with, as these have an offset
  SparseGaps<int8_t> rest;

  int most_singly() const { return exact ? kFew : 10; }
  int groups() const { return (rows + kGroup - 1) / kGroup; }
  size_t bytes() const { return (banks.edges.size() + begins.size()) * 4 + units.size() + rest.bytes(); }

  // Entries in the order of rows. None if they do not spread so evenly that this is faster than panels.
  static std::optional<SparseBanks> from(const std::vector<Entry<int8_t>>& entries, int rows, int columns, bool exact) {
    // In cycles, measured: a unit here, one of panels, of which a quarter is filled up at best, and an entry of gaps.
    const double unit = 3.5, in_panels = 6.0 * 1.25 / 64.0, in_gaps = 1.5;
    const int units = (rows + kGroup - 1) / kGroup * kUnits;  // of a bank
    auto banks = Banks::of(entries, rows, columns, kMostRegisters * 64, [=, &entries](const Banks& some, size_t left) {
      return units * some.count() * unit + left * in_gaps <= static_cast<double>(entries.size()) * in_panels;
    });
    if (!banks) return std::nullopt;
    SparseBanks result(rows, std::move(*banks), exact);
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
    apply_units(scales, x, y, 1, 1);
    rest.apply(scales, x, y);
  }
  // The same of y (rows, lanes) and x (columns, lanes).
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    const size_t stride = static_cast<size_t>(lanes);
    for (int lane = 0; lane < lanes; lane += kByteLanes)
      apply_units(scales, x + lane, y + lane, std::min(kByteLanes, lanes - lane), stride);
    rest.apply_lanes(scales, x, y, lanes);
  }

 private:
  static constexpr size_t kChunkBytes = 20 << 10;  // of units, while they serve one lane after the other

  SparseBanks(int rows, Banks banks, bool exact)
      : rows(rows), exact(exact), banks(std::move(banks)), registers((this->banks.widest() + 63) / 64) {}

  size_t group_bytes() const { return static_cast<size_t>(banks.count()) * kUnits * kUnitBytes; }

  void fill(const std::vector<Entry<int8_t>>& entries) {
    units.assign(groups() * group_bytes(), 0);
    begins.assign(static_cast<size_t>(groups()) * kGroup, 0);
    std::vector<Entry<int8_t>> left;
    banks.each_placed(entries, [&](const auto& entry, int bank, int n) {
      if (n >= kEach) return left.push_back(entry);
      const int place = entry.row % kGroup;
      uint8_t* unit = units.data() + entry.row / kGroup * group_bytes() + (bank * kUnits + place / kHeight) * kUnitBytes;
      const int k = place % kHeight * kEach + n;
      unit[k] = static_cast<uint8_t>(static_cast<int32_t>(entry.column) - banks.edges[bank]);
      unit[64 + k] = static_cast<uint8_t>(entry.value);
      begins[entry.row] -= kByteZero * static_cast<int32_t>(entry.value);
    });
    rest = SparseGaps<int8_t>::from(left);
  }

  template <class F>
  void each_in_units(F f) const {
    const uint8_t* unit = units.data();
    for (int group = 0; group < groups(); ++group)
      for (int bank = 0; bank < banks.count(); ++bank)
        for (int first = group * kGroup; first < (group + 1) * kGroup; first += kHeight, unit += kUnitBytes)
          for (int k = 0; k < 64; ++k) {
            const auto value = static_cast<int8_t>(unit[64 + k]);
            if (value != 0) f(first + k / kEach, static_cast<uint16_t>(banks.edges[bank] + unit[k]), value);
          }
  }

  // The units' part of `count` lanes; rows of x and y lie `stride` apart.
  void apply_units(const float* scales, const float* x, float* y, int count, size_t stride) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const auto slowly = [&](int k) {
      each_in_units([&](int row, uint16_t column, int8_t value) {
        y[row * stride + k] += (scales == nullptr ? 1.0f : scales[row]) * value * x[column * stride + k];
      });
    };
    const ByteRoom room(count, exact, Strips{banks.edges.data(), banks.count(), registers * 64}, arena);
    if (stride > 1) transpose(x, stride, banks.columns(), count, room.x, room.width);
    in_turns(room, stride > 1 ? room.x : x, arena, slowly, [&](const ByteLane* lanes, const ByteScales& scale_of_lane) {
      multiply(scales, lanes, count, scale_of_lane, y, stride, arena);
    });
  }

  // y += scale[row] · (units · digits) of all lanes.
  void multiply(const float* scales, const ByteLane* lanes, int count, const ByteScales& scale_of_lane, float* y,
                size_t stride, Arena& arena) const {
    Arena::Scope scope(arena);
    // A single lane passes over them once.
    const int chunk = count == 1 ? groups() : std::max(1, static_cast<int>(kChunkBytes / group_bytes()));
    float* totals = arena.take<float>(static_cast<size_t>(count) * chunk * kGroup);
    for (int first = 0; first < groups(); first += chunk) {
      const int some = std::min(chunk, groups() - first), height = some * kGroup;
      for (int k = 0; k < count;)
        k += next_lanes(lanes + k, count - k, [&](auto digits, auto together) {
          multiply_lanes<digits, together>(lanes + k, first, some, totals + k * height, height);
        });
      const int row = first * kGroup, end = std::min(rows, row + height);
      if (count == 16)
        add_lanes<16>(scales, scale_of_lane, totals, height, row, end, y, stride);
      else if (count == 8)
        add_lanes<8>(scales, scale_of_lane, totals, height, row, end, y, stride);
      else if (count == 4)
        add_lanes<4>(scales, scale_of_lane, totals, height, row, end, y, stride);
      else
        add_lane(scales, scale_of_lane[0], totals, row, end, y);
    }
  }

  // y[row … end - 1] += the row's and the lane's scale · totals: of one lane, ...
  static void add_lane(const float* scales, float scale_of_lane, const float* totals, int row, int end, float* y) {
    for (; row < end; row += 16, totals += 16) {
      const __mmask16 there = lanes_left(end - row);
      __m512 scale = _mm512_set1_ps(scale_of_lane);
      if (scales != nullptr) scale = _mm512_mul_ps(scale, _mm512_maskz_loadu_ps(there, scales + row));
      const __m512 before = _mm512_maskz_loadu_ps(there, y + row);
      _mm512_mask_storeu_ps(y + row, there, _mm512_fmadd_ps(scale, _mm512_load_ps(totals), before));
    }
  }
  // or of N, whose totals lie `height` apart. Eight fill half of a register, so two rows come at a time; eight lanes are all
  // that there are, so rows of y lie beside each other.
  template <int N>
  static void add_lanes(const float* scales, const ByteScales& scale_of_lane, const float* totals, int height, int row, int end,
                        float* y, size_t stride) {
    const Vec<N> scale_of_lanes = load<N>(scale_of_lane);
    const auto scale_of = [=](int r) { return scales == nullptr ? scale_of_lanes : scales[r] * scale_of_lanes; };
    const auto add = [=](int r, auto total) {
      constexpr int M = sizeof(total) / sizeof(float);
      float* to = y + r * stride;
      if constexpr (M > N) {
        if (r + 1 < end) return store<M>(to, load<M>(to) + join<N>(scale_of(r), scale_of(r + 1)) * total);
        if (r < end) store<N>(to, load<N>(to) + scale_of(r) * first_half<N>(total));
      } else {
        if (r < end) store<N>(to, load<N>(to) + scale_of(r) * total);
      }
    };
    constexpr int step = N == 8 ? 16 : N;
    for (; row < end; row += step, totals += step) {
      const auto put = [=](int r, auto total) { add(row + r, total); };
      if constexpr (N == 8)
        transpose_8_by_16(totals, static_cast<size_t>(height), put);
      else
        transpose_block<N>(totals, static_cast<size_t>(height), put);
    }
  }

  template <int D, int L>
  void multiply_lanes(const ByteLane* lanes, int first, int count, float* totals, int height) const {
    if constexpr (D == 0) std::memset(totals, 0, sizeof(float) * static_cast<size_t>(height));
    if constexpr (D > 0)
      switch (registers) {
        case 1: return multiply_groups<D, L, 1>(lanes, first, count, totals, height);
        case 2: return multiply_groups<D, L, 2>(lanes, first, count, totals, height);
        case 3: return multiply_groups<D, L, 3>(lanes, first, count, totals, height);
        default: return multiply_groups<D, L, 4>(lanes, first, count, totals, height);
      }
  }

  // totals (L, count · 64 rows), `height` apart = `count` groups' sums of L lanes with D digits in R registers a bank, the
  // last digit counting 1.
  template <int D, int L, int R>
  __attribute__((noinline)) void multiply_groups(const ByteLane* lanes, int first, int count, float* totals, int height) const {
    constexpr int U = D * L * R <= 8 ? kUnits : kUnits / 2;  // as many units as registers allow
    const uint8_t* group = units.data() + first * group_bytes();
    const int32_t* begin = begins.data() + static_cast<size_t>(first) * kGroup;
    for (; count > 0; --count, group += group_bytes())
      for (int from = 0; from < kUnits; from += U) {
        __m512i total[U][L][D];
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u, begin += kHeight)
#pragma GCC unroll 4
          for (int l = 0; l < L; ++l) {
            total[u][l][0] = _mm512_load_si512(begin);
#pragma GCC unroll 4
            for (int d = 1; d < D; ++d) total[u][l][d] = _mm512_setzero_si512();
          }
        const uint8_t* unit = group + from * kUnitBytes;
        size_t strip = 0;
        for (int bank = 0; bank < banks.count(); ++bank, unit += kUnits * kUnitBytes, strip += R * 64) {
          __m512i x[L][D][R];
#pragma GCC unroll 4
          for (int l = 0; l < L; ++l)
#pragma GCC unroll 4
            for (int d = 0; d < D; ++d)
#pragma GCC unroll 4
              for (int r = 0; r < R; ++r) x[l][d][r] = _mm512_load_si512(lanes[l].digits[d] + strip + r * 64);
#pragma GCC unroll 4
          for (int u = 0; u < U; ++u) {
            __m512i index = _mm512_load_si512(unit + u * kUnitBytes), values = _mm512_load_si512(unit + u * kUnitBytes + 64);
            asm("" : "+v"(index), "+v"(values));  // loaded once, not for each digit
#pragma GCC unroll 4
            for (int l = 0; l < L; ++l)
#pragma GCC unroll 4
              for (int d = 0; d < D; ++d) add_dot(total[u][l][d], looked_up<R>(x[l][d], index), values);
          }
        }
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u, totals += kHeight)
#pragma GCC unroll 4
          for (int l = 0; l < L; ++l) _mm512_store_ps(totals + l * height, ByteLane::number(total[u][l]));
      }
  }
};

#endif

}  // namespace dopant
