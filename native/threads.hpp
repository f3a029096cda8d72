// A call's independent parts, shared among threads that wait for such work. How many is set once for the process.
//
// The caller works too. Threads are made when first needed and never end; a second caller that comes meanwhile does all
// of its parts itself, so that callers never wait for each other. After a fork the child begins with threads of its own.
// Whoever waits looks on for a moment before it sleeps: to be woken takes as long as a whole step of an LSTM.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#include "vec.hpp"

namespace dopant {

class Threads {
 public:
  static std::atomic<int>& wanted() {
    static std::atomic<int> count{1};
    return count;
  }

  // How many parts it is worth to cut a matrix of so many bytes into.
  static int parts(size_t bytes) {
    return static_cast<int>(std::min<size_t>(static_cast<size_t>(wanted()), 1 + bytes / kWorthwhile));
  }

  // part(0) … part(count - 1), in any order; throws on what one of them throws.
  static void run(int count, const std::function<void(int)>& part) {
    if (count > 1 && wanted() > 1) {
      Threads& threads = of_this_process();
      if (!threads.busy_.exchange(true)) {
        const Busy until_done{threads.busy_};
        return threads.share(count, part);
      }
    }
    for (int i = 0; i < count; ++i) part(i);
  }

 private:
  struct Busy {
    std::atomic<bool>& flag;
    ~Busy() { flag = false; }
  };

  // No lock: another thread might hold it at a fork, and nobody in the child would give it back.
  static Threads& of_this_process() {
    static std::atomic<Threads*> made{nullptr};
    Threads* there = made;
    while (there == nullptr || there->process_ != getpid()) {
      Threads* own = new Threads;  // never freed: its threads never end
      if (made.compare_exchange_strong(there, own)) return *own;
      delete own;
    }
    return *there;
  }

  void share(int count, const std::function<void(int)>& part) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      part_ = &part;
      count_ = count;
      next_ = 0;
      error_ = nullptr;
      const int helpers = std::min(wanted() - 1, count - 1);
      try {
        for (; made_ < helpers; ++made_) std::thread([this] { wait_for_work(); }).detach();
      } catch (const std::system_error&) {  // the system has no more of them: fewer will do
      }
      places_ = std::min(made_, helpers);
    }
    work_.notify_all();
    take_parts();
    std::unique_lock<std::mutex> lock(mutex_);
    places_ = 0;  // who has not begun by now finds nothing to do
    if (working_ > 0) look_on(lock, [this] { return working_ == 0; });
    done_.wait(lock, [this] { return working_ == 0; });
    if (error_) std::rethrow_exception(error_);
  }

  void wait_for_work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      look_on(lock, [this] { return places_ > 0; });
      if (places_ == 0) work_.wait(lock);
      if (places_ == 0) continue;  // too late for this call, but the next one may be near
      --places_;
      ++working_;
      lock.unlock();
      take_parts();
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  // Until `ready`, but not for long; without the lock.
  template <class Ready>
  static void look_on(std::unique_lock<std::mutex>& lock, Ready ready) {
    lock.unlock();
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(kMoment);
    while (!ready() && std::chrono::steady_clock::now() < end) {
#if defined(__SSE2__)
      for (int i = 0; i < 8; ++i) _mm_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
    lock.lock();
  }

  void take_parts() {
    for (int i; (i = next_++) < count_;) {
      try {
        (*part_)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex_);
        error_ = std::current_exception();
      }
    }
  }

  static constexpr size_t kWorthwhile = 256 << 10;  // bytes that are read in ten or twenty microseconds
  static constexpr int kMoment = 100;               // microseconds

  const pid_t process_ = getpid();
  std::atomic<bool> busy_{false};  // one call at a time
  std::mutex mutex_;               // what follows
  std::condition_variable work_, done_;
  const std::function<void(int)>* part_ = nullptr;
  std::atomic<int> next_{0}, places_{0}, working_{0};
  int count_ = 0, made_ = 0;
  std::exception_ptr error_;
};

}  // namespace dopant
