/* SPDX-License-Identifier: MIT
 *
 * redirect.h: a new export directory is written behind the module, and its header then points there.
 */
#include "redirect.h"

#include <stdint.h>
#include <string.h>

#define GRANULARITY 0x10000u
/* Offsets in an image are 32-bit, and read as signed here and there. */
#define FARTHEST 0x70000000u
/* For one name that is added: its entries in the tables, and its text. */
#define ROOM_FOR_A_NAME 0x100u

/* movabs rax, target; jmp rax */
#define JUMP_SIZE 16u
#define JUMPS_SIZE 0x1000u

typedef struct exports
{
    BYTE *base; /* of the module: offsets count from here */
    IMAGE_DATA_DIRECTORY *entry;
    IMAGE_EXPORT_DIRECTORY *directory;
    DWORD *functions;
    DWORD *names;
    WORD *ordinals;
} exports;

static void
find_exports(HMODULE module, exports *found)
{
    BYTE *base = (BYTE *)module;
    IMAGE_NT_HEADERS *headers = (IMAGE_NT_HEADERS *)(base + ((IMAGE_DOS_HEADER *)base)->e_lfanew);
    found->base = base;
    found->entry = &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT];
    found->directory = (IMAGE_EXPORT_DIRECTORY *)(base + found->entry->VirtualAddress);
    found->functions = (DWORD *)(base + found->directory->AddressOfFunctions);
    found->names = (DWORD *)(base + found->directory->AddressOfNames);
    found->ordinals = (WORD *)(base + found->directory->AddressOfNameOrdinals);
}

static DWORD
offset_of(const exports *of, const void *address)
{
    return (DWORD)((const BYTE *)address - of->base);
}

/* Memory behind the module, within reach of its offsets. */
static BYTE *
allocate_near(HMODULE module, SIZE_T size)
{
    BYTE *base = (BYTE *)module;
    IMAGE_NT_HEADERS *headers = (IMAGE_NT_HEADERS *)(base + ((IMAGE_DOS_HEADER *)base)->e_lfanew);
    uintptr_t first = (uintptr_t)base + headers->OptionalHeader.SizeOfImage + GRANULARITY - 1;
    BYTE *block = NULL;
    for (uintptr_t at = first & ~(uintptr_t)(GRANULARITY - 1); !block && at < (uintptr_t)base + FARTHEST;
         at += GRANULARITY)
        block = VirtualAlloc((void *)at, size, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    return block;
}

static bool
is_forwarder(const exports *old, DWORD function)
{
    return function >= old->entry->VirtualAddress && function < old->entry->VirtualAddress + old->entry->Size;
}

/* Forwarders are texts inside the directory's range, so they have to move with it. Returns what follows them. */
static BYTE *
copy_forwarders(const exports *old, const exports *new, BYTE *text)
{
    for (DWORD i = 0; i < old->directory->NumberOfFunctions; i++)
    {
        if (is_forwarder(old, old->functions[i]))
        {
            size_t size = strlen((const char *)old->base + old->functions[i]) + 1;
            memcpy(text, old->base + old->functions[i], size);
            new->functions[i] = offset_of(new, text);
            text += size;
        }
    }
    return text;
}

/* Copies the directory to `place`, with room for `added` more names. Returns what follows it. */
static BYTE *
copy_directory(const exports *old, exports *new, BYTE *place, DWORD added)
{
    DWORD functions = old->directory->NumberOfFunctions;
    DWORD names = old->directory->NumberOfNames;
    *new = *old;
    new->directory = (IMAGE_EXPORT_DIRECTORY *)place;
    *new->directory = *old->directory;
    new->functions = (DWORD *)(new->directory + 1);
    new->names = new->functions + functions + added;
    new->ordinals = (WORD *)(new->names + names + added);
    memcpy(new->functions, old->functions, functions * sizeof(DWORD));
    memcpy(new->names, old->names, names * sizeof(DWORD));
    memcpy(new->ordinals, old->ordinals, names * sizeof(WORD));
    new->directory->AddressOfFunctions = offset_of(new, new->functions);
    new->directory->AddressOfNames = offset_of(new, new->names);
    new->directory->AddressOfNameOrdinals = offset_of(new, new->ordinals);
    return copy_forwarders(old, new, (BYTE *)(new->ordinals + names + added));
}

/* Exports `jump` under a name: instead of what has it, or in the name's place in the order. Returns what follows the
 * texts. */
static BYTE *
put(exports *new, const char *name, const BYTE *jump, BYTE *text)
{
    IMAGE_EXPORT_DIRECTORY *directory = new->directory;
    DWORD at = 0;
    size_t size = strlen(name) + 1;
    while (at < directory->NumberOfNames && strcmp((const char *)new->base + new->names[at], name) < 0)
        at++;
    if (at < directory->NumberOfNames && strcmp((const char *)new->base + new->names[at], name) == 0)
    {
        new->functions[new->ordinals[at]] = offset_of(new, jump);
        return text;
    }
    memmove(new->names + at + 1, new->names + at, (directory->NumberOfNames - at) * sizeof(DWORD));
    memmove(new->ordinals + at + 1, new->ordinals + at, (directory->NumberOfNames - at) * sizeof(WORD));
    memcpy(text, name, size);
    new->names[at] = offset_of(new, text);
    new->ordinals[at] = (WORD)directory->NumberOfFunctions;
    new->functions[directory->NumberOfFunctions++] = offset_of(new, jump);
    directory->NumberOfNames++;
    return text + size;
}

static void
write_jump(BYTE *jump, FARPROC target)
{
    static const BYTE load[] = {0x48, 0xB8}, go[] = {0xFF, 0xE0};
    memcpy(jump, load, sizeof(load));
    memcpy(jump + sizeof(load), &target, sizeof(target));
    memcpy(jump + sizeof(load) + sizeof(target), go, sizeof(go));
}

static bool
point_header_at(const exports *new, const BYTE *end)
{
    DWORD protection;
    if (!VirtualProtect(new->entry, sizeof(*new->entry), PAGE_READWRITE, &protection))
        return false;
    new->entry->VirtualAddress = offset_of(new, new->directory);
    new->entry->Size = (DWORD)(end - (const BYTE *)new->directory);
    VirtualProtect(new->entry, sizeof(*new->entry), protection, &protection);
    return true;
}

bool
redirect_exports(HMODULE module, const redirection *redirections, DWORD count)
{
    exports old;
    find_exports(module, &old);
    BYTE *block = allocate_near(module, JUMPS_SIZE + old.entry->Size + count * ROOM_FOR_A_NAME);
    if (!block || count > JUMPS_SIZE / JUMP_SIZE)
        return false;
    for (DWORD i = 0; i < count; i++)
        if (redirections[i].original)
            *redirections[i].original = GetProcAddress(module, redirections[i].name);
    exports new;
    /* The jumps lie before the directory: what an entry finds inside its range would be a forwarder. */
    BYTE *text = copy_directory(&old, &new, block + JUMPS_SIZE, count);
    for (DWORD i = 0; i < count; i++)
    {
        write_jump(block + i * JUMP_SIZE, redirections[i].target);
        text = put(&new, redirections[i].name, block + i * JUMP_SIZE, text);
    }
    return point_header_at(&new, text);
}
