// Scratch memory of a thread: taken from the top of a stack, given back when the scope ends.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace dopant {

// For std::vector: memory at the start of a cache line, so that no load of a whole register straddles two.
template <class T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U>
  Aligned(const Aligned<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* memory, size_t) { ::operator delete(memory, std::align_val_t{64}); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
};
template <class T>
using AlignedVector = std::vector<T, Aligned<T>>;

class Arena {
 public:
  // Everything taken after a Scope began is free again when it ends.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() {
      arena_.block_ = block_;
      arena_.used_ = used_;
      if (block_ == 0 && used_ == 0 && arena_.held_ > kKept) arena_.clear();
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t block_, used_;
  };

  template <class T>
  T* take(size_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64 + 64;  // a cache line more, for reads past the end
    while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size) {
      ++block_;
      used_ = 0;
    }
    if (block_ == blocks_.size()) {
      const size_t wanted = std::max({bytes, kBlock, blocks_.empty() ? 0 : 2 * blocks_.back().size});
      const size_t size = (wanted + 63) / 64 * 64;
      void* memory = std::aligned_alloc(64, size);
      if (memory == nullptr) throw std::bad_alloc();
      blocks_.push_back({std::unique_ptr<char, Free>(static_cast<char*>(memory)), size});
      held_ += size;
      used_ = 0;
    }
    T* result = reinterpret_cast<T*>(blocks_[block_].memory.get() + used_);
    used_ += bytes;
    return result;
  }

  static Arena& of_this_thread() {
    thread_local Arena arena;
    return arena;
  }

 private:
  static constexpr size_t kBlock = size_t{1} << 20;
  static constexpr size_t kKept = size_t{64} << 20;  // more goes back to the system when the outermost scope ends

  void clear() {
    blocks_.clear();
    held_ = 0;
  }

  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  struct Block {
    std::unique_ptr<char, Free> memory;
    size_t size;
  };
  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0, held_ = 0;
};

}  // namespace dopant
