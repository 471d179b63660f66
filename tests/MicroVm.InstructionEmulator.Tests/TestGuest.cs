using MicroVm.Kvm.Native;
using MicroVm.Memory;
using Xunit;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>
/// A small 64-bit guest at CPL 0: RAM identity-mapped in 2 MiB pages, except for one 2 MiB of 4 KiB pages, with a GDT, a
/// TSS and an IDT whose 32 handlers write their vector to port 0x81 and stop.
/// </summary>
internal sealed unsafe class TestGuest : IDisposable
{
    public const ulong RamSize = 8 << 20;
    public const ulong CodeAddress = 0x1_0000;
    public const ulong StackTop = 0x8_0000;

    /// <summary>Start of the 2 MiB that are mapped by 4 KiB pages.</summary>
    public const ulong SmallPages = 0x20_0000;

    /// <summary>Where operands live by default, in large pages.</summary>
    public const ulong Data = 0x40_0000;

    public const byte StopPort = 0x80;
    public const byte FaultPort = 0x81;
    private const ulong Pml4 = 0x9000;
    private const ulong Pdpt = 0xa000;
    private const ulong Pd = 0xb000;
    private const ulong Pt = 0xc000;
    private const ulong Gdt = 0x500;
    private const ulong Tss = 0x600;
    private const ulong Idt = 0x2000;
    private const ulong Handlers = 0x4000;
    private const ulong PresentWritableUser = 7;

    public TestGuest()
    {
        Memory = GuestMemory.Create(RamSize);
        Write(Pml4, Pdpt | PresentWritableUser);
        Write(Pdpt, Pd | PresentWritableUser);
        for (ulong i = 0; i < 512; i++)
        {
            Write(Pd + (i * 8), i == SmallPages >> 21 ? Pt | PresentWritableUser : (i << 21) | 0x80 | PresentWritableUser);
            MapSmall(SmallPages + (i << 12), SmallPages + (i << 12), PresentWritableUser);
        }

        Write(Gdt + 16, 0x00af_9b00_0000_fffful);
        Write(Gdt + 24, 0x00cf_9300_0000_fffful);
        Write(Gdt + 40, 0x00cf_f300_0000_fffful);
        Write(Gdt + 48, 0x00af_fb00_0000_fffful);
        Write(Gdt + 64, 0x67ul | (Tss << 16) | (0x8bul << 40));
        Write(Tss + 4, StackTop - 0x1000);
        for (ulong vector = 0; vector < 32; vector++)
        {
            ulong handler = Handlers + (vector * 16);
            Write(Idt + (vector * 16), (handler & 0xffff) | (0x10ul << 16) | (0xeeul << 40));
            Memory.TryWrite(handler, [0xb0, (byte)vector, 0xe6, FaultPort, 0xf4]); // mov al, vector; out 0x81, al; hlt
        }
    }

    public GuestMemory Memory { get; }

    /// <summary>Writes a page table entry of the 4 KiB pages.</summary>
    public void MapSmall(ulong linear, ulong gpa, ulong bits) => Write(EntryOf(linear), gpa | bits);

    /// <summary>Reads a page table entry of the 4 KiB pages.</summary>
    public ulong SmallEntry(ulong linear) => Read(EntryOf(linear));

    public void Write(ulong gpa, ulong value) => Assert.True(Memory.TryWrite(gpa, in value));

    public ulong Read(ulong gpa) => Memory.TryRead(gpa, out ulong value) ? value : throw new ArgumentOutOfRangeException(nameof(gpa));

    public byte* Pointer(ulong gpa) => Memory.TryGetPointer(gpa, 1);

    /// <summary>Puts long mode at CPL 0, with SSE and XSAVE on, into a vCPU's registers.</summary>
    public static void SetLongMode(ref kvm_sregs sregs)
    {
        kvm_segment code = new() { limit = uint.MaxValue, selector = 0x10, present = 1, type = 11, s = 1, l = 1, g = 1 };
        kvm_segment data = new() { limit = uint.MaxValue, selector = 0x18, present = 1, type = 3, s = 1, db = 1, g = 1 };
        sregs.cs = code;
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
        sregs.gdt = new kvm_dtable { @base = Gdt, limit = 0x5f };
        sregs.idt = new kvm_dtable { @base = Idt, limit = 0x1ff };
        sregs.tr = new kvm_segment { @base = Tss, limit = 0x67, selector = 0x40, type = 11, present = 1 };
        sregs.cr0 = 0x8005_0033;
        sregs.cr3 = Pml4;
        sregs.cr4 = 0x20 | 0x600 | (1 << 18);
        sregs.efer = 0xd01;
    }

    public void Dispose() => Memory.Dispose();

    private static ulong EntryOf(ulong linear) => Pt + (((linear - SmallPages) >> 12) * 8);
}
