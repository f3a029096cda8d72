// Weights of every kind, each beside the dense matrix of doubles that it stands for.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "interface.hpp"

struct Matrix {
  int rows = 0, columns = 0;
  std::vector<double> values;

  Matrix(int rows, int columns) : rows(rows), columns(columns), values(static_cast<size_t>(rows) * columns) {}
  double& at(int i, int j) { return values[static_cast<size_t>(i) * columns + j]; }
  double at(int i, int j) const { return values[static_cast<size_t>(i) * columns + j]; }
};

struct Case {
  std::string name;
  std::shared_ptr<void> handle;
  Matrix dense;
  double loss = 0.0;  // by rounding: at most this share of the largest activation times a row's sum of magnitudes

  Case(std::string name, void* made, Matrix matrix, double loss = 0.0)
      : name(std::move(name)), handle(made, dopant_free_weight), dense(std::move(matrix)), loss(loss) {
    check(made != nullptr, "%s: %s", this->name.c_str(), dopant_error());
  }
};

constexpr double kByteLoss = 0.51 / 127;  // 8-bit activations err by half a level each

inline std::string sizes(int rows, int columns) { return std::to_string(rows) + "x" + std::to_string(columns); }

inline Case dense(int rows, int columns, Random& random) {
  const auto values = random.values(static_cast<size_t>(rows) * columns);
  Matrix matrix(rows, columns);
  matrix.values.assign(values.begin(), values.end());
  return {"dense " + sizes(rows, columns), dopant_dense(rows, columns, values.data()), std::move(matrix)};
}

inline Case dense_int8(int rows, int columns, bool fast, Random& random) {
  Matrix matrix(rows, columns);
  std::vector<int8_t> values(matrix.values.size());
  std::vector<float> scales;
  for (int r = 0; r < rows; ++r) scales.push_back(0.001f + 0.01f * std::fabs(random.value()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<int8_t>(random.below(255) - 127);
    matrix.values[i] = static_cast<double>(values[i]) * scales[i / static_cast<size_t>(columns)];
  }
  void* made = dopant_dense_int8(rows, columns, values.data(), scales.data(), fast);
  return {std::string("dense int8 ") + (fast ? "fast " : "") + sizes(rows, columns), made, std::move(matrix),
          fast ? kByteLoss : 0.0};
}

// A sparse matrix whose row r has `count(r)` non-zeros at random places.
struct Pattern {
  int rows, columns;
  std::vector<int64_t> starts{0};
  std::vector<int32_t> column_of;

  template <class Count>
  Pattern(int rows, int columns, Count count, Random& random) : rows(rows), columns(columns) {
    for (int r = 0; r < rows; ++r) {
      int left = count(r);
      if (left * 8 > columns) {  // each column in turn, with the chance that the rest demands
        for (int j = 0; j < columns && left > 0; ++j)
          if (random.below(columns - j) < left) column_of.push_back(j), --left;
      } else {
        for (int k = 0; k < left; ++k) {  // one in each of `left` strips
          const int first = static_cast<int>(static_cast<int64_t>(columns) * k / left);
          const int end = static_cast<int>(static_cast<int64_t>(columns) * (k + 1) / left);
          column_of.push_back(first + random.below(end - first));
        }
      }
      starts.push_back(static_cast<int64_t>(column_of.size()));
    }
  }
  size_t size() const { return column_of.size(); }
};

enum class Values { kFloat, kInt8, kFast };

// zeros: whether some of the 8-bit values that are there are zero.
inline Case sparse(const std::string& name, const Pattern& pattern, bool lookup, Values kind, Random& random,
                   bool zeros = true) {
  const int rows = pattern.rows, columns = pattern.columns;
  Matrix matrix(rows, columns);
  std::vector<float> values = random.values(pattern.size()), scales;
  std::vector<int8_t> levels;
  for (int r = 0; r < rows; ++r) scales.push_back(0.001f + 0.01f * std::fabs(random.value()));
  for (size_t i = 0; i < pattern.size(); ++i) levels.push_back(static_cast<int8_t>(random.below(255) - 127));
  if (!zeros) std::replace(levels.begin(), levels.end(), int8_t{0}, int8_t{1});
  for (int r = 0; r < rows; ++r)
    for (int64_t i = pattern.starts[r]; i < pattern.starts[r + 1]; ++i)
      matrix.at(r, pattern.column_of[i]) =
          kind == Values::kFloat ? values[i] : static_cast<double>(levels[i]) * scales[r];
  void* made = kind == Values::kFloat
                   ? dopant_sparse(rows, columns, lookup, pattern.starts.data(), pattern.column_of.data(),
                                   values.data())
                   : dopant_sparse_int8(rows, columns, lookup, pattern.starts.data(), pattern.column_of.data(),
                                        levels.data(), scales.data(), kind == Values::kFast);
  const char* form = kind == Values::kFloat ? "" : kind == Values::kInt8 ? "int8 " : "int8 fast ";
  return {"sparse " + name + " " + form + sizes(rows, columns) + (lookup ? " lookup" : ""), made,
          std::move(matrix), kind == Values::kFast ? kByteLoss : 0.0};
}

enum class Rows { kAlike, kUneven };  // uneven: up to a thousand times as large, and every fourth zero

// shapes: rows and columns of each factor. Fast loses a few halves of the 2^15 levels of activations, of numbers between
// the factors, and of each entry of a row of both.
inline Case kronecker(int terms, const std::vector<int32_t>& shapes, bool fast, Random& random,
                      Rows kind = Rows::kAlike) {
  std::vector<std::vector<float>> factors;
  std::vector<const float*> pointers;
  int rows = 1, columns = 1;
  for (size_t f = 0; 2 * f < shapes.size(); ++f) {
    rows *= shapes[2 * f];
    columns *= shapes[2 * f + 1];
    factors.push_back(random.values(static_cast<size_t>(terms) * shapes[2 * f] * shapes[2 * f + 1]));
    if (kind == Rows::kUneven)
      for (size_t i = 0; i < factors[f].size(); ++i) {
        const size_t row = i / shapes[2 * f + 1];
        factors[f][i] *= row % 4 == 1 ? 0.0f : std::pow(10.0f, static_cast<float>(row % 4) + (f == 0 ? 12.0f : -15.0f));
      }
  }
  for (const auto& factor : factors) pointers.push_back(factor.data());
  Matrix matrix(rows, columns);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j)
      for (int t = 0; t < terms; ++t) {
        double product = 1.0;
        for (size_t f = factors.size(), i_rest = i, j_rest = j; f-- > 0;) {
          const size_t m = shapes[2 * f], n = shapes[2 * f + 1];
          product *= factors[f][(t * m + i_rest % m) * n + j_rest % n];
          i_rest /= m;
          j_rest /= n;
        }
        matrix.at(i, j) += product;
      }
  std::string name = "kronecker " + std::to_string(terms) + " terms";
  for (size_t f = 0; f < factors.size(); ++f) name += " " + sizes(shapes[2 * f], shapes[2 * f + 1]);
  name += std::string(kind == Rows::kUneven ? " uneven" : "") + (fast ? " fast" : "");
  double loss = 2.0;
  for (size_t f = 0; f < factors.size(); ++f) loss += shapes[2 * f + 1] / 2.0;
  void* made = dopant_kronecker(terms, static_cast<int>(factors.size()), shapes.data(), pointers.data(), fast);
  return {name, made, std::move(matrix), fast ? loss / 32767 : 0.0};
}

inline Case sum(const Case& a, const Case& b) {
  const void* parts[] = {a.handle.get(), b.handle.get()};
  Matrix matrix = a.dense;
  for (size_t i = 0; i < matrix.values.size(); ++i) matrix.values[i] += b.dense.values[i];
  return {"sum of " + a.name + " and " + b.name, dopant_sum(parts, 2), std::move(matrix), std::fmax(a.loss, b.loss)};
}

inline Case stack(const Case& a, const Case& b) {
  const void* parts[] = {a.handle.get(), b.handle.get()};
  Matrix matrix(a.dense.rows + b.dense.rows, a.dense.columns);
  matrix.values = a.dense.values;
  matrix.values.insert(matrix.values.end(), b.dense.values.begin(), b.dense.values.end());
  return {"stack of " + a.name + " and " + b.name, dopant_stack(parts, 2), std::move(matrix), std::fmax(a.loss, b.loss)};
}

inline Case product(const Case& a, const Case& b) {
  Matrix matrix(a.dense.rows, b.dense.columns);
  for (int i = 0; i < matrix.rows; ++i)
    for (int k = 0; k < a.dense.columns; ++k)
      for (int j = 0; j < matrix.columns; ++j) matrix.at(i, j) += a.dense.at(i, k) * b.dense.at(k, j);
  return {"product of " + a.name + " and " + b.name, dopant_product(a.handle.get(), b.handle.get()),
          std::move(matrix)};
}
