using MicroVm.Kvm.Native;
using MicroVm.Memory;

namespace MicroVm.InstructionEmulator;

/// <summary>What an access does to a page.</summary>
[Flags]
internal enum PageAccess
{
    /// <summary>A read by the supervisor.</summary>
    Read = 0,

    /// <summary>A write.</summary>
    Write = 1,

    /// <summary>Made at CPL 3.</summary>
    User = 2,

    /// <summary>An instruction fetch.</summary>
    Fetch = 4,
}

/// <summary>How a walk ended.</summary>
internal enum WalkResult
{
    /// <summary>The page is there and allows the access.</summary>
    Mapped,

    /// <summary>#PF, with an error code.</summary>
    PageFault,

    /// <summary>A paging mode that is not walked here (32-bit paging with or without PAE), or a table outside RAM.</summary>
    Unsupported,
}

/// <summary>
/// Translates guest linear addresses as the processor does (Intel SDM volume 3, chapter 4): 4- and 5-level paging with
/// 4 KiB, 2 MiB and 1 GiB pages, or no paging. Checks present, reserved, write, user, NX, WP, SMEP and SMAP, and sets
/// accessed and dirty bits. Protection keys are not checked: where this is used, guests have none.
/// </summary>
internal static class GuestPageWalker
{
    private const ulong Present = 1;
    private const ulong Writable = 2;
    private const ulong UserPage = 4;
    private const ulong Accessed = 0x20;
    private const ulong Dirty = 0x40;
    private const ulong PageSize = 0x80;
    private const ulong NoExecute = 1ul << 63;
    private const ulong AddressMask = 0x000F_FFFF_FFFF_F000;
    private const uint ErrorPresent = 1;
    private const uint ErrorWrite = 2;
    private const uint ErrorUser = 4;
    private const uint ErrorReserved = 8;
    private const uint ErrorFetch = 16;
    private const ulong Cr0WriteProtect = 1 << 16;
    private const ulong Cr0Paging = 1ul << 31;
    private const ulong Cr4Smep = 1 << 20;
    private const ulong Cr4Smap = 1 << 21;
    private const ulong Cr4La57 = 1 << 12;
    private const ulong EferLongModeActive = 1 << 10;
    private const ulong EferNoExecute = 1 << 11;
    private const ulong RflagsAc = 1 << 18;

    /// <summary>Bits of a physical address that this host does not have: reserved in page tables.</summary>
    private static readonly ulong ReservedAddressBits = AddressMask & ~((1ul << PhysicalAddressBits()) - 1);

    /// <summary>Translates one address. The page goes on for at least up to the next multiple of 4 KiB.</summary>
    /// <param name="memory">Guest RAM, which holds the tables.</param>
    /// <param name="sregs">Control registers.</param>
    /// <param name="rflags">For AC.</param>
    /// <param name="linear">A canonical linear address.</param>
    /// <param name="access">What is done with it.</param>
    /// <param name="gpa">The guest physical address, when mapped.</param>
    /// <param name="errorCode">#PF's error code, when it faults.</param>
    // Safe: each entry is 8 aligned bytes that were checked to be RAM; the guest may change it, so it is read once.
    public static unsafe WalkResult Walk(
        GuestMemory memory, in kvm_sregs sregs, ulong rflags, ulong linear, PageAccess access, out ulong gpa, out uint errorCode)
    {
        gpa = linear;
        errorCode = 0;
        if ((sregs.cr0 & Cr0Paging) == 0)
        {
            gpa = (uint)linear;
            return WalkResult.Mapped;
        }

        if ((sregs.efer & EferLongModeActive) == 0)
        {
            return WalkResult.Unsupported;
        }

        bool nx = (sregs.efer & EferNoExecute) != 0;
        errorCode = ((access & PageAccess.Write) != 0 ? ErrorWrite : 0)
            | ((access & PageAccess.User) != 0 ? ErrorUser : 0)
            | ((access & PageAccess.Fetch) != 0 && (nx || (sregs.cr4 & Cr4Smep) != 0) ? ErrorFetch : 0);
        ulong reserved = ReservedAddressBits | (nx ? 0 : NoExecute);
        ulong table = sregs.cr3 & AddressMask;
        ulong rights = Writable | UserPage;
        ulong denied = 0;
        for (int level = (sregs.cr4 & Cr4La57) != 0 ? 5 : 4; ; level--)
        {
            int shift = 12 + (9 * (level - 1));
            ulong* entry = (ulong*)memory.TryGetPointer(table + ((linear >> shift & 0x1FF) * 8), 8);
            if (entry is null)
            {
                return WalkResult.Unsupported;
            }

            ulong value = Volatile.Read(ref *entry);
            if ((value & Present) == 0)
            {
                return WalkResult.PageFault;
            }

            bool leaf = level == 1 || (value & PageSize) != 0;
            ulong pageMask = (1ul << shift) - 1;
            bool badSize = level > 1 && leaf && (level > 3 || (value & AddressMask & pageMask & ~0x1FFFul) != 0);
            if ((value & reserved) != 0 || badSize)
            {
                errorCode |= ErrorPresent | ErrorReserved;
                return WalkResult.PageFault;
            }

            rights &= value;
            denied |= value & NoExecute;
            if (!leaf)
            {
                SetBits(entry, value, Accessed);
                table = value & AddressMask;
                continue;
            }

            if (!Allowed(in sregs, rflags, access, rights, denied))
            {
                errorCode |= ErrorPresent;
                return WalkResult.PageFault;
            }

            SetBits(entry, value, Accessed | ((access & PageAccess.Write) != 0 ? Dirty : 0));
            gpa = (value & AddressMask & ~pageMask) | (linear & pageMask);
            return WalkResult.Mapped;
        }
    }

    private static bool Allowed(in kvm_sregs sregs, ulong rflags, PageAccess access, ulong rights, ulong noExecute)
    {
        bool userPage = (rights & UserPage) != 0;
        bool fetch = (access & PageAccess.Fetch) != 0;
        if (fetch && noExecute != 0)
        {
            return false;
        }

        if ((access & PageAccess.User) != 0)
        {
            return userPage && ((access & PageAccess.Write) == 0 || (rights & Writable) != 0);
        }

        if (userPage && (fetch ? (sregs.cr4 & Cr4Smep) != 0 : (sregs.cr4 & Cr4Smap) != 0 && (rflags & RflagsAc) == 0))
        {
            return false;
        }

        return (access & PageAccess.Write) == 0 || (rights & Writable) != 0 || (sregs.cr0 & Cr0WriteProtect) == 0;
    }

    // Safe: Walk checked the entry.
    private static unsafe void SetBits(ulong* entry, ulong value, ulong bits)
    {
        // Locked, as the processor does it; when another vCPU has changed the entry meanwhile, its change wins and the
        // bits are not added, which a walk a moment earlier would have shown, too.
        if ((value & bits) != bits)
        {
            Interlocked.CompareExchange(ref *entry, value | bits, value);
        }
    }

    private static int PhysicalAddressBits()
    {
        int bits = System.Runtime.Intrinsics.X86.X86Base.CpuId(unchecked((int)0x8000_0008), 0).Eax & 0xFF;
        return bits is >= 36 and <= 52 ? bits : 52;
    }
}
