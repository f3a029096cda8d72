// Weights made of weights: a sum (doped), a stack by rows (hybrid, gates), weights side by side (a wide sparse one), a product
// (low rank).
#pragma once

#include <array>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "weight.hpp"

namespace dopant {

inline void check(bool fits, const char* otherwise) {
  if (!fits) throw std::invalid_argument(otherwise);
}

class Sum final : public Weight {
 public:
  explicit Sum(std::vector<WeightPointer> parts)
      : Weight(parts.at(0)->rows, parts.at(0)->columns), parts_(std::move(parts)) {
    for (const auto& part : parts_) check(part->rows == rows && part->columns == columns, "a sum's parts differ in shape");
  }
  void apply(const float* x, float* y, int lanes) const override {
    for (const auto& part : parts_) part->apply(x, y, lanes);
  }
  void set(const float* x, float* y, int lanes) const override {
    parts_[0]->set(x, y, lanes);
    for (size_t i = 1; i < parts_.size(); ++i) parts_[i]->apply(x, y, lanes);
  }
  void row(int i, float* out) const override {
    for (const auto& part : parts_) part->row(i, out);
  }
  int most_singly() const override { return most_singly_of(parts_); }
  bool gains_by_lanes() const override { return any_gains_by_lanes(parts_); }
  WeightPointer columns_of(int first, int count) const override {
    std::vector<WeightPointer> parts;
    for (const auto& part : parts_) {
      parts.push_back(part->columns_of(first, count));
      if (!parts.back()) return nullptr;
    }
    return std::make_shared<Sum>(std::move(parts));
  }
  size_t bytes() const override { return bytes_of(parts_); }

  static size_t bytes_of(const std::vector<WeightPointer>& parts) {
    size_t total = 0;
    for (const auto& part : parts) total += part->bytes();
    return total;
  }

 private:
  std::vector<WeightPointer> parts_;
};

class Stack final : public Weight {
 public:
  explicit Stack(std::vector<WeightPointer> parts)
      : Weight(total_rows(parts), parts.at(0)->columns), parts_(std::move(parts)) {
    for (const auto& part : parts_) check(part->columns == columns, "a stack's parts differ in columns");
  }
  void apply(const float* x, float* y, int lanes) const override {
    for (const auto& part : parts_) {
      part->apply(x, y, lanes);
      y += static_cast<size_t>(part->rows) * lanes;
    }
  }
  void row(int i, float* out) const override {
    for (const auto& part : parts_) {
      if (i < part->rows) return part->row(i, out);
      i -= part->rows;
    }
  }
  int most_singly() const override { return most_singly_of(parts_); }
  bool gains_by_lanes() const override { return any_gains_by_lanes(parts_); }
  size_t bytes() const override { return Sum::bytes_of(parts_); }

 private:
  static int total_rows(const std::vector<WeightPointer>& parts) {
    int rows = 0;
    for (const auto& part : parts) rows += part->rows;
    return rows;
  }
  std::vector<WeightPointer> parts_;
};

class Beside final : public Weight {
 public:
  explicit Beside(std::vector<WeightPointer> parts) : Weight(parts.at(0)->rows, total_columns(parts)), parts_(std::move(parts)) {
    for (const auto& part : parts_) check(part->rows == rows, "weights side by side differ in rows");
  }
  void apply(const float* x, float* y, int lanes) const override {
    for (const auto& part : parts_) {
      part->apply(x, y, lanes);
      x += static_cast<size_t>(part->columns) * lanes;
    }
  }
  void row(int i, float* out) const override {
    for (const auto& part : parts_) {
      part->row(i, out);
      out += part->columns;
    }
  }
  int most_singly() const override { return most_singly_of(parts_); }
  size_t bytes() const override { return Sum::bytes_of(parts_); }

 private:
  static int total_columns(const std::vector<WeightPointer>& parts) {
    int columns = 0;
    for (const auto& part : parts) columns += part->columns;
    return columns;
  }
  std::vector<WeightPointer> parts_;
};

class Product final : public Weight {
 public:
  Product(WeightPointer left, WeightPointer right)
      : Weight(left->rows, right->columns), left_(std::move(left)), right_(std::move(right)) {
    check(left_->columns == right_->rows, "a product's factors do not fit each other");
  }
  void apply(const float* x, float* y, int lanes) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const size_t count = static_cast<size_t>(right_->rows) * lanes;
    float* middle = arena.take<float>(count);
    right_->set(x, middle, lanes);
    left_->apply(middle, y, lanes);
  }
  void row(int i, float* out) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float* middle = arena.take<float>(static_cast<size_t>(left_->columns));
    float* part = arena.take<float>(static_cast<size_t>(columns));
    std::memset(middle, 0, sizeof(float) * static_cast<size_t>(left_->columns));
    left_->row(i, middle);
    for (int k = 0; k < left_->columns; ++k) {
      std::memset(part, 0, sizeof(float) * static_cast<size_t>(columns));
      right_->row(k, part);
      for (int j = 0; j < columns; ++j) out[j] += middle[k] * part[j];
    }
  }
  int most_singly() const override { return most_singly_of(std::array{left_, right_}); }
  bool gains_by_lanes() const override { return any_gains_by_lanes(std::array{left_, right_}); }
  size_t bytes() const override { return left_->bytes() + right_->bytes(); }

 private:
  WeightPointer left_, right_;
};

}  // namespace dopant
