// Streams of the emulated device: when their work is done.
//
// EF_EMULATED_STREAMS=eager (the default): at once. lazy: when somebody waits for it, and nothing
// besides; default_last: the same, but of the default stream alone. What lacks an order that a
// device needs, too, gives other results in one of them.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace emulated {

using Work = std::function<void()>;
using Recording = std::vector<Work>;

struct Stream {
  std::unique_ptr<Recording> recording;  // while it is captured
  std::deque<Work> waiting;
  long done = 0;  // pieces of work so far
};

// Null is the default stream.
Stream* stream_of(void* handle);
void* new_stream();

void queue(void* stream, Work work);
// Does what the stream was given, and what that waits for; finish_all: what all streams were given.
void finish(void* stream);
void finish_all();

// What a stream has been given so far.
struct Event {
  Stream* stream = nullptr;
  long position = 0;
};
Event record(void* stream);
void wait(void* stream, const Event& event);

// Whether the memory is page-locked: other memory of the host is copied at once.
bool is_pinned(const void* pointer);
void add_pinned(const void* pointer, size_t bytes);
void remove_pinned(const void* pointer);

}  // namespace emulated
