// The LSTM cell: from gates to the new state, with exp by a polynomial (relative error about 1e-7).
#pragma once

#include "vec.hpp"

namespace dopant {

// e^x = scale · (1 + rest) with a power of two and a small rest, so that e^x - 1 too comes out to the last digits.
template <int N>
struct Exponential {
  Vec<N> scale, rest;

  explicit Exponential(Vec<N> x) {
    const Vec<N> magic = all<N>(12582912.0f);  // 1.5 · 2^23: adding it rounds to a whole number, in the lowest bits
    x = x > 40.0f ? all<N>(40.0f) : x;         // e^40 squared is still a number
    x = x < -80.0f ? all<N>(-80.0f) : x;       // a NaN compares false and stays
    const Vec<N> shifted = x * 1.44269504088896341f + magic;
    const Vec<N> whole = shifted - magic;
    const Vec<N> r = (x - whole * 0.693145751953125f) - whole * 1.42860682030941723212e-6f;
    Vec<N> p = all<N>(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    rest = p * r * r + r;
    scale = (Vec<N>)(((IntVec<N>)shifted - (IntVec<N>)magic + 127) << 23);
  }
  Vec<N> value() const { return scale * rest + scale; }
  Vec<N> minus_one() const { return scale * rest + (scale - 1.0f); }
};

template <int N>
inline Vec<N> exponential(Vec<N> x) {
  return Exponential<N>(x).value();
}

// σ(a) = 1 / (1 + e^-a) and tanh(b) = -m / (2 + m) with m = e^-2b - 1: their product takes one division.
template <int N>
inline Vec<N> sigmoid_times_tanh(Vec<N> a, Vec<N> b) {
  const Vec<N> p = exponential<N>(-a), m = Exponential<N>(-2.0f * b).minus_one();
  return -m * reciprocal<N>((1.0f + p) * (2.0f + m));
}

template <int N>
inline void cell_lanes(const float* gates, size_t gate, float* c, float* h) {
  const Vec<N> i = load<N>(gates), f = load<N>(gates + gate), g = load<N>(gates + 2 * gate);
  const Vec<N> o = load<N>(gates + 3 * gate);
  const Vec<N> kept = load<N>(c) * reciprocal<N>(1.0f + exponential<N>(-f));
  const Vec<N> next = kept + sigmoid_times_tanh<N>(i, g);
  store<N>(c, next);
  store<N>(h, sigmoid_times_tanh<N>(o, next));
}

// gates: i f g o of `count` values each; c is replaced, h is written.
inline void cell(const float* gates, float* c, float* h, size_t count) {
  size_t k = 0;
  for (; k + W <= count; k += W) cell_lanes<W>(gates + k, count, c + k, h + k);
  if (k == count) return;
  float rest[6][W] = {};
  const int left = static_cast<int>(count - k);
  for (int part = 0; part < 4; ++part) store<W>(rest[part], load_first(gates + part * count + k, left));
  store<W>(rest[4], load_first(c + k, left));
  cell_lanes<W>(rest[0], W, rest[4], rest[5]);
  store_first(c + k, load<W>(rest[4]), left);
  store_first(h + k, load<W>(rest[5]), left);
}

}  // namespace dopant
