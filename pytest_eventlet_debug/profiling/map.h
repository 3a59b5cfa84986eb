#ifndef EVENTLET_DEBUG_MAP_H
#define EVENTLET_DEBUG_MAP_H

#include <Python.h>

#include <stdint.h>

/* A map from addresses to addresses: open addressing, a power of two of slots. */

typedef struct {
    const void *key;
    void *value;
} Slot;

typedef struct {
    Slot *slots;
    size_t mask;
    size_t used;
} Map;

static inline size_t
map_place(const Map *map, const void *key)
{
    size_t place = (size_t)(((uint64_t)(uintptr_t)key >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
    for (place &= map->mask; map->slots[place].key != NULL; place = (place + 1) & map->mask) {
        if (map->slots[place].key == key) {
            break;
        }
    }
    return place;
}

static inline void *
map_get(const Map *map, const void *key)
{
    return map->slots == NULL ? NULL : map->slots[map_place(map, key)].value;
}

/* Put in a key that is not there; -1 where memory is short. */
static inline int
map_add(Map *map, const void *key, void *value)
{
    if (map->slots == NULL || map->used * 3 >= map->mask * 2) {
        size_t size = map->slots == NULL ? 4 : (map->mask + 1) * 2;
        Map larger = {PyMem_Calloc(size, sizeof(Slot)), size - 1, map->used};
        if (larger.slots == NULL) {
            return -1;
        }
        for (size_t i = 0; map->slots != NULL && i <= map->mask; i++) {
            if (map->slots[i].key != NULL) {
                larger.slots[map_place(&larger, map->slots[i].key)] = map->slots[i];
            }
        }
        PyMem_Free(map->slots);
        *map = larger;
    }
    map->slots[map_place(map, key)] = (Slot){key, value};
    map->used++;
    return 0;
}

static inline void
map_remove(Map *map, const void *key)
{
    size_t place = map_place(map, key);
    if (map->slots[place].key == NULL) {
        return;
    }
    map->slots[place] = (Slot){NULL, NULL};
    map->used--;
    /* Whoever was put behind it for want of a place moves up. */
    for (size_t i = (place + 1) & map->mask; map->slots[i].key != NULL; i = (i + 1) & map->mask) {
        Slot moved = map->slots[i];
        map->slots[i] = (Slot){NULL, NULL};
        map->slots[map_place(map, moved.key)] = moved;
    }
}

#endif
