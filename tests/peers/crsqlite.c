// Loads a build of cr-sqlite for Android, which lies beside it. Compiled as `crsqlite.so`, and linked
// to what the build asks for, so that this is loaded before.

#include <dlfcn.h>
#include <stdio.h>

typedef int entry_point(void *db, char **error, const void *routines);

int sqlite3_crsqlite_init(void *db, char **error, const void *routines) {
  void *library = dlopen("libcrsqlite.so", RTLD_NOW | RTLD_LOCAL);
  entry_point *init = library ? (entry_point *)dlsym(library, "sqlite3_crsqlite_init") : 0;
  if (!init) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  return init(db, error, routines);
}
