#include "streams.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace emulated {
namespace {

// Of all streams; work may wait for that of another one.
std::recursive_mutex mutex;
std::vector<std::unique_ptr<Stream>> streams;  // never freed: others may wait for what they did
Stream default_stream;
std::map<const char*, size_t> pinned;

bool waits(const Stream* stream) {
  static const char* wish = std::getenv("EF_EMULATED_STREAMS");
  static const std::string name = wish == nullptr ? "eager" : wish;
  return name == "lazy" || (name == "default_last" && stream == &default_stream);
}

void run_until(Stream& stream, long position) {
  while (stream.done < position && !stream.waiting.empty()) {
    const Work work = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    work();
    ++stream.done;
  }
}

}  // namespace

Stream* stream_of(void* handle) {
  return handle == nullptr ? &default_stream : static_cast<Stream*>(handle);
}

void* new_stream() {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  streams.push_back(std::make_unique<Stream>());
  return streams.back().get();
}

void queue(void* handle, Work work) {
  Stream* stream = stream_of(handle);
  if (stream->recording) {
    stream->recording->push_back(std::move(work));
  } else if (waits(stream)) {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    stream->waiting.push_back(std::move(work));
  } else {
    work();
  }
}

void finish(void* handle) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  run_until(*stream_of(handle), record(handle).position);
}

void finish_all() {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  finish(nullptr);
  for (const auto& stream : streams) finish(stream.get());
}

Event record(void* handle) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  Stream* stream = stream_of(handle);
  return {stream, stream->done + static_cast<long>(stream->waiting.size())};
}

void wait(void* handle, const Event& event) {
  queue(handle, [event] {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    run_until(*event.stream, event.position);
  });
}

bool is_pinned(const void* pointer) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  const char* p = static_cast<const char*>(pointer);
  const auto after = pinned.upper_bound(p);
  if (after == pinned.begin()) return false;
  const auto found = std::prev(after);
  return p < found->first + found->second;
}

void add_pinned(const void* pointer, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  pinned[static_cast<const char*>(pointer)] = bytes;
}

void remove_pinned(const void* pointer) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  pinned.erase(static_cast<const char*>(pointer));
}

}  // namespace emulated

// For tests, which find them by name: what another library does on the default stream.
extern "C" __attribute__((visibility("default"))) void ef_emulated_copy(void* to, const void* from,
                                                                        size_t bytes) {
  emulated::queue(nullptr, [=] { std::memcpy(to, from, bytes); });
}
extern "C" __attribute__((visibility("default"))) void ef_emulated_finish() {
  emulated::finish(nullptr);
}
extern "C" __attribute__((visibility("default"))) void ef_emulated_capture(bool begin) {
  emulated::stream_of(nullptr)->recording.reset(begin ? new emulated::Recording : nullptr);
}
