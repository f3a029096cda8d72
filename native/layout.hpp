// From rows of a batch (batch, features), as callers have them, to lanes (features, lanes), as kernels want them.
#pragma once

#include <algorithm>
#include <cstring>

#include "vec.hpp"

namespace dopant {

// to[j · stride + b] = from[b · features + j] for all lanes; lanes beyond the batch become zero.
inline void to_lanes(const float* from, int batch, int features, float* to, int lanes, int stride) {
  if (lanes == 1) {
    for (int j = 0; j < features; ++j) to[static_cast<size_t>(j) * stride] = from[j];
    return;
  }
  for (int first = 0; first < features; first += 16) {  // a cache line of each row at a time
    const int end = std::min(features, first + 16);
    for (int lane = 0; lane < lanes; ++lane) {
      if (lane < batch)
        for (int j = first; j < end; ++j)
          to[static_cast<size_t>(j) * stride + lane] = from[static_cast<size_t>(lane) * features + j];
      else
        for (int j = first; j < end; ++j) to[static_cast<size_t>(j) * stride + lane] = 0.0f;
    }
  }
}

// to[b · to_stride + j] = from[j · lanes + b].
inline void from_lanes(const float* from, int batch, int features, int lanes, float* to, size_t to_stride) {
  if (lanes == 1) {
    std::memcpy(to, from, sizeof(float) * static_cast<size_t>(features));
    return;
  }
  for (int first = 0; first < features; first += 16) {
    const int end = std::min(features, first + 16);
    for (int b = 0; b < batch; ++b)
      for (int j = first; j < end; ++j) to[b * to_stride + j] = from[static_cast<size_t>(j) * lanes + b];
  }
}

}  // namespace dopant
