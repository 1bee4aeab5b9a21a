// What Android's C library has and a build of cr-sqlite for Android asks for. Compiled as `libc.so`.
//
// The only builds of cr-sqlite that a package registry has ready to run are Android's, in the npm
// package expo-sqlite. They call these few functions and nothing else.

typedef __SIZE_TYPE__ size_t;

int memcmp(const void *left, const void *right, size_t count) {
  const unsigned char *a = left, *b = right;
  for (; count; count--, a++, b++)
    if (*a != *b) return *a - *b;
  return 0;
}

void *memcpy(void *to, const void *from, size_t count) {
  void *start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  return start;
}

void *memmove(void *to, const void *from, size_t count) {
  unsigned char *target = to;
  const unsigned char *source = from;
  if (target <= source || target >= source + count) return memcpy(to, from, count);
  while (count--) target[count] = source[count];
  return to;
}

void *memset(void *to, int byte, size_t count) {
  void *start = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(byte) : "memory");
  return start;
}

size_t strlen(const char *text) {
  size_t count = 0;
  while (text[count]) count++;
  return count;
}

// The library is never unloaded, so nothing of it has to be ended.
int __cxa_atexit(void (*end)(void *), void *argument, void *library) {
  (void)end, (void)argument, (void)library;
  return 0;
}

void __cxa_finalize(void *library) { (void)library; }

// No test forks with a cr-sqlite in it.
int __register_atfork(void (*before)(void), void (*here)(void), void (*there)(void), void *library) {
  (void)before, (void)here, (void)there, (void)library;
  return 0;
}
