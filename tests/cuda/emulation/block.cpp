// The threads of a block as fibers.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace emulated {

__thread Index thread_index, block_index;

namespace {

constexpr size_t kStack = 256 << 10;

// Where a fiber or the scheduler goes on. A fiber begins through ucontext; from then on _longjmp
// is faster, as it makes no system call, but AddressSanitizer knows the former alone.
struct Place {
  ucontext_t context;
  jmp_buf jump;
  bool begun = false;
};

void go(Place& from, Place& to) {
#ifdef __SANITIZE_ADDRESS__
  swapcontext(&from.context, &to.context);
#else
  if (_setjmp(from.jump) != 0) return;
  from.begun = true;
  if (to.begun) _longjmp(to.jump, 1);
  setcontext(&to.context);
#endif
}

constexpr size_t kWarp = 32;

// What a fiber that does not run waits for.
enum class Wait { kNothing, kWarp, kBlock, kDone };

struct Fiber {
  Place place;
  std::unique_ptr<char[]> stack;
  Wait wait = Wait::kDone;
  // What it gave to its warp last, and the time before: a fiber is at most one exchange ahead of
  // another that has still to read.
  uint64_t given[2] = {};
  unsigned exchanges = 0;
};

struct Block {
  std::deque<Fiber> fibers;  // they stay where they are: contexts point into themselves
  Place scheduler;
  size_t current = 0;
  const std::function<void()>* kernel = nullptr;
  std::unique_ptr<unsigned char[]> shared;
};
__thread Block* running = nullptr;

// Lets the fiber that runs wait.
void stop(Wait wait) {
  Fiber& fiber = running->fibers[running->current];
  fiber.wait = wait;
  go(fiber.place, running->scheduler);
}

// A fiber serves one block after another, as to begin one costs system calls.
void enter() {
  for (;;) {
    (*running->kernel)();
    stop(Wait::kDone);
  }
}

void start(Fiber& fiber) {
  if (!fiber.stack) {
    fiber.stack.reset(new char[kStack]);
    ucontext_t& context = fiber.place.context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, enter, 0);
  }
  fiber.wait = Wait::kNothing;
  fiber.exchanges = 0;
}

std::vector<size_t> order_of(size_t count) {
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = i;
  const char* wish = std::getenv("EF_EMULATED_ORDER");
  const std::string name = wish == nullptr ? "forward" : wish;
  static thread_local std::mt19937 random(1);
  if (name == "backward") std::reverse(order.begin(), order.end());
  if (name == "shuffled") std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Whether all fibers of first .. end - 1 wait for `wait`.
bool all_wait(const Block& block, size_t first, size_t end, Wait wait) {
  for (size_t i = first; i < end; ++i) {
    if (block.fibers[i].wait != wait) return false;
  }
  return true;
}

void go_on(Block& block, size_t first, size_t end) {
  for (size_t i = first; i < end; ++i) block.fibers[i].wait = Wait::kNothing;
}

// Opens the barriers that all their fibers have come to; false where there is none.
bool open_barriers(Block& block, size_t threads) {
  if (all_wait(block, 0, threads, Wait::kBlock)) {
    go_on(block, 0, threads);
    return true;
  }
  bool opened = false;
  for (size_t first = 0; first < threads; first += kWarp) {
    const size_t end = std::min(first + kWarp, threads);
    if (!all_wait(block, first, end, Wait::kWarp)) continue;
    go_on(block, first, end);
    opened = true;
  }
  return opened;
}

void run_block(Block& block, size_t threads, size_t shared) {
  block.shared.reset(new unsigned char[std::max<size_t>(shared, 1)]);
  std::memset(block.shared.get(), 0xff, shared);
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  for (size_t i = 0; i < threads; ++i) start(block.fibers[i]);
  do {
    for (const size_t i : order_of(threads)) {
      if (block.fibers[i].wait != Wait::kNothing) continue;
      block.current = i;
      thread_index.x = static_cast<unsigned>(i);
      go(block.scheduler, block.fibers[i].place);
    }
  } while (open_barriers(block, threads));
  if (!all_wait(block, 0, threads, Wait::kDone))
    give_up("some threads wait at a barrier that others do not come to");
}

}  // namespace

void* shared_memory() { return running->shared.get(); }

[[noreturn]] void give_up(const char* why) {
  std::fprintf(stderr, "emulated device: %s\n", why);
  std::abort();
}

void barrier() { stop(Wait::kBlock); }

void warp_barrier() { stop(Wait::kWarp); }

uint64_t exchange(uint64_t mine, int lane) {
  Block& block = *running;
  const size_t me = block.current;
  const size_t first = me / kWarp * kWarp;
  const unsigned turn = block.fibers[me].exchanges++ % 2;
  block.fibers[me].given[turn] = mine;
  warp_barrier();
  return block.fibers[first + static_cast<size_t>(lane)].given[turn];
}

// Of a launch that is not recorded.
void run(unsigned blocks, unsigned threads, size_t shared, const std::function<void()>& kernel) {
  if (threads == 0 || threads > 1024) give_up("a block has 1 to 1024 threads");
  // Of the devices that the build is for, 8.6, 8.9 and 12.0 have the least.
  if (shared > (size_t{99} << 10)) give_up("a block has at most 99 KiB of shared memory");
  static thread_local Block block;
  running = &block;
  block.kernel = &kernel;
  for (const size_t i : order_of(blocks)) {
    block_index.x = static_cast<unsigned>(i);
    run_block(block, threads, shared);
  }
}

}  // namespace emulated
