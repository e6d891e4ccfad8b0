/* SPDX-License-Identifier: MIT
 *
 * Gives a loaded system module of Wine's, in this process only, an export directory in which some entries lead to our
 * functions. Modules that are loaded afterwards are bound to them by the ordinary loader: nothing of wintun.dll is
 * touched.
 */
#ifndef STANDIN_REDIRECT_H
#define STANDIN_REDIRECT_H

#include <stdbool.h>
#include <windows.h>

/* A type that any function pointer may have on the way to another type. */
typedef void (*any_function)(void);

typedef struct redirection
{
    const char *name;
    FARPROC target;
    FARPROC *original; /* receives what was exported under this name; may be NULL */
} redirection;

/* Names that the module lacks are added: an import that is missing in Wine would become a stub that ends the process.
 * False if there is no room near the module, or its header can't be written. */
bool redirect_exports(HMODULE module, const redirection *redirections, DWORD count);

#endif
