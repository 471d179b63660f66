/*
 * The first code of every executable. A position-independent one writes to each page of its data while it relocates itself, and each of
 * these writes would be a page fault, in which the kernel copies that page. One call copies all of them. (Linux before 5.14 does not know
 * it; then they are faults.)
 *
 * Nothing is relocated yet and there is no thread-local storage: neither the C library nor global data can be used.
 */
#include <elf.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PAGE 4096UL

extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));

__attribute__((used)) static void make_pages_own(void)
{
	const char *image = (const char *)&__ehdr_start;
	const Elf64_Phdr *header = (const Elf64_Phdr *)(image + __ehdr_start.e_phoff);
	for (int i = 0; i < __ehdr_start.e_phnum; i++, header++) {
		if (header->p_type != PT_LOAD || !(header->p_flags & PF_W))
			continue;
		unsigned long start = (unsigned long)image + header->p_vaddr, end = start + header->p_filesz;
		start &= -PAGE;
		long result;
		__asm__ volatile("syscall"
			: "=a"(result)
			: "0"(SYS_madvise), "D"(start), "S"((end - start + PAGE - 1) & -PAGE), "d"(MADV_POPULATE_WRITE)
			: "rcx", "r11", "memory");
	}
}

/* The kernel's values of the stack pointer and of rdx, a function to call at the exit (none), are what the C library's start expects. */
__asm__(".globl start_with_own_pages\n"
	".type start_with_own_pages, @function\n"
	"start_with_own_pages:\n"
	"	call make_pages_own\n"
	"	xor %edx, %edx\n"
	"	jmp _start\n");
