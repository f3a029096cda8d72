// Random numbers, and a count of what was checked and of what failed.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <vector>

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  // 0 … count - 1
  int below(int count) { return static_cast<int>((next() >> 33) % static_cast<uint64_t>(count)); }
  // About -1 … 1.
  float value() { return static_cast<float>(static_cast<double>(next() >> 40) / (1 << 23) - 1.0); }
  std::vector<float> values(size_t count, float size = 1.0f) {
    std::vector<float> result(count);
    for (float& v : result) v = size * value();
    return result;
  }

 private:
  uint64_t next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
  uint64_t state_;
};

struct Tally {
  long checked = 0, failed = 0;
};
inline Tally tally;

// What failed is told, the first twenty times.
inline bool check(bool holds, const char* format, ...) __attribute__((format(printf, 2, 3)));
inline bool check(bool holds, const char* format, ...) {
  ++tally.checked;
  if (holds || ++tally.failed > 20) return holds;
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::printf("\n");
  return false;
}

// An array that begins `offset` floats past an allocation's start and ends with it, so that a sanitizer sees what lies
// behind, and kernels do not count on alignment.
class Array {
 public:
  Array(size_t count, int offset) : values_(count + static_cast<size_t>(offset), NAN), offset_(offset) {}
  Array(const std::vector<float>& from, int offset) : Array(from.size(), offset) {
    for (size_t i = 0; i < from.size(); ++i) data()[i] = from[i];
  }
  float* data() { return values_.data() + offset_; }
  float operator[](size_t i) const { return values_[i + static_cast<size_t>(offset_)]; }

 private:
  std::vector<float> values_;
  int offset_;
};
