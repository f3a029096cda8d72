// A function of one variable by a table that lies in registers (the fast mode): the range is cut into pieces, each with
// a polynomial of the second degree, whose coefficients a permute looks up for all lanes at once.
//
// Ten operations, where e^x and a division take about twenty. Values at 0 and at the ends are exact: a saturated gate must
// not leak, nor a state of zeros drift, however many steps there are.
#pragma once

#include <cmath>

#include "vec.hpp"

namespace dopant {

#if defined(__AVX512F__)
constexpr bool kCurves = true;

class Curve {
 public:
  // f, and from -range and range on its limits.
  template <class F>
  Curve(F f, double range) : pieces_per_unit_(static_cast<float>((kMost - 0.5) / range)) {
    const double side = std::sqrt(0.75) / 2;  // where the error of such a polynomial is zero, besides the middle
    for (int piece = -kMost + 1; piece < kMost; ++piece) {
      auto at = [&](double r) { return f((piece + r) / pieces_per_unit_); };
      const double before = at(-side), middle = at(0.0), after = at(side);
      set(0, piece, middle);
      set(1, piece, (after - before) / (2 * side));
      set(2, piece, (before + after - 2 * middle) / (2 * side * side));
    }
    set(0, -kMost, f(-HUGE_VAL));
    set(0, kMost, f(HUGE_VAL));
  }

  // A NaN stays.
  Vec<W> operator()(Vec<W> x) const {
    const float magic = 12582912.0f + kMost;  // 1.5 · 2^23: adding it rounds to a whole number, in the lowest bits
    const Vec<W> within = at_least<W>(at_most<W>(x, range_), -range_);
    const Vec<W> shifted = within * pieces_per_unit_ + magic, r = within * pieces_per_unit_ - (shifted - magic);
    return (look_up(2, shifted) * r + look_up(1, shifted)) * r + look_up(0, shifted);
  }

 private:
  static constexpr int kMost = 15;  // pieces on each side of the middle one; the last is the limit

  void set(int degree, int piece, double value) {
    const int at = piece + kMost;
    table_[degree][at / W][at % W] = static_cast<float>(value);
  }
  Vec<W> look_up(int degree, Vec<W> shifted) const {
    const Vec<W>(&table)[2] = table_[degree];
    return (Vec<W>)_mm512_permutex2var_ps((__m512)table[0], (__m512i)shifted, (__m512)table[1]);
  }

  Vec<W> table_[3][2] = {};
  float pieces_per_unit_, range_ = kMost / pieces_per_unit_;
};

struct Curves {
  Curve sigmoid{[](double x) { return 1 / (1 + std::exp(-x)); }, 8.9};
  Curve tanh{[](double x) { return std::tanh(x); }, 4.45};

  static const Curves& get() {
    static const Curves curves;
    return curves;
  }
};

#else
constexpr bool kCurves = false;
struct Curves {
  static Curves get() { return {}; }
};
#endif

}  // namespace dopant
