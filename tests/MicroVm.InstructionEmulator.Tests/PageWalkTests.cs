using MicroVm.Kvm.Native;
using Xunit;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>Address translation: permissions, error codes, accessed and dirty bits, page sizes, both depths.</summary>
public sealed class PageWalkTests : IDisposable
{
    private const ulong Page = TestGuest.SmallPages + 0x7000;
    private const ulong Present = 1;
    private const ulong Writable = 2;
    private const ulong User = 4;
    private const ulong Accessed = 0x20;
    private const ulong Dirty = 0x40;
    private const ulong NoExecute = 1ul << 63;
    private const ulong Smep = 1 << 20;
    private const ulong Smap = 1 << 21;
    private readonly TestGuest _guest = new();
    private kvm_sregs _sregs;

    public PageWalkTests()
    {
        TestGuest.SetLongMode(ref _sregs);
        _sregs.efer |= 0x800;
    }

    public void Dispose() => _guest.Dispose();

    [Theory]
    [InlineData(0ul, (int)(PageAccess.Read), 0)]
    [InlineData(0ul, (int)(PageAccess.Write | PageAccess.User), 6)]
    [InlineData(Present, (int)(PageAccess.Write), 3)]
    [InlineData(Present | Writable, (int)(PageAccess.User), 5)]
    [InlineData(Present | User, (int)(PageAccess.Write | PageAccess.User), 7)]
    [InlineData(Present | NoExecute, (int)(PageAccess.Fetch), 0x11)]
    [InlineData(Present | Writable | (1ul << 51), (int)(PageAccess.Read), 9)]
    public void Faults_have_the_processors_error_codes(ulong entry, int access, uint errorCode)
    {
        _guest.MapSmall(Page, Page, entry);
        Assert.Equal((WalkResult.PageFault, errorCode), Walk(Page + 5, (PageAccess)access, 2).Head);
        Assert.Equal(0ul, _guest.SmallEntry(Page) & (Accessed | Dirty));
    }

    [Fact]
    public void A_supervisor_writes_read_only_pages_only_without_wp()
    {
        _guest.MapSmall(Page, Page, Present);
        Assert.Equal(WalkResult.PageFault, Walk(Page, PageAccess.Write, 2).Head.Result);
        _sregs.cr0 &= ~(1ul << 16);
        Assert.Equal(WalkResult.Mapped, Walk(Page, PageAccess.Write, 2).Head.Result);
        Assert.Equal(WalkResult.PageFault, Walk(Page, PageAccess.Write | PageAccess.User, 2).Head.Result);
    }

    [Fact]
    public void Smap_and_smep_keep_the_supervisor_off_user_pages()
    {
        _guest.MapSmall(Page, Page, Present | Writable | User);
        _sregs.cr4 |= Smap;
        Assert.Equal((WalkResult.PageFault, 1u), Walk(Page, PageAccess.Read, 2).Head);
        Assert.Equal(WalkResult.Mapped, Walk(Page, PageAccess.Read, 2 | (1 << 18)).Head.Result);
        Assert.Equal(WalkResult.Mapped, Walk(Page, PageAccess.Fetch, 2).Head.Result);
        _sregs.cr4 |= Smep;
        Assert.Equal((WalkResult.PageFault, 0x11u), Walk(Page, PageAccess.Fetch, 2).Head);
    }

    [Fact]
    public void Reads_set_accessed_and_writes_set_dirty()
    {
        _guest.MapSmall(Page, Page, Present | Writable);
        Assert.Equal(Page + 8, Walk(Page + 8, PageAccess.Read, 2).Gpa);
        Assert.Equal(Accessed, _guest.SmallEntry(Page) & (Accessed | Dirty));
        Walk(Page, PageAccess.Write, 2);
        Assert.Equal(Accessed | Dirty, _guest.SmallEntry(Page) & (Accessed | Dirty));
    }

    [Fact]
    public void Large_pages_and_five_levels_translate()
    {
        Assert.Equal(TestGuest.Data + 0x1_2345, Walk(TestGuest.Data + 0x1_2345, PageAccess.Write, 2).Gpa);

        // A 1 GiB page at the second gibibyte, and a fifth level above.
        const ulong Level5 = 0x6_0000;
        _guest.Write(0xa000 + 8, 0x83);
        Assert.Equal(0x12_3456ul, Walk(0x4012_3456, PageAccess.Read, 2).Gpa);
        _guest.Write(0xa000 + 8, 0x2083); // bit 13 is reserved in a 1 GiB page
        Assert.Equal((WalkResult.PageFault, 9u), Walk(0x4012_3456, PageAccess.Read, 2).Head);
        _guest.Write(Level5, 0x9000 | 7);
        _sregs.cr3 = Level5;
        _sregs.cr4 |= 1 << 12;
        Assert.Equal(TestGuest.Data + 1, Walk(TestGuest.Data + 1, PageAccess.Read, 2).Gpa);
    }

    [Fact]
    public void Without_paging_addresses_are_physical_and_other_modes_are_refused()
    {
        _sregs.cr0 &= ~(1ul << 31);
        Assert.Equal(0x1234ul, Walk(0x1234, PageAccess.Write, 2).Gpa);
        _sregs.cr0 |= 1ul << 31;
        _sregs.efer = 0;
        Assert.Equal(WalkResult.Unsupported, Walk(0x1234, PageAccess.Read, 2).Head.Result);
    }

    [Fact]
    public void Tables_outside_ram_are_refused()
    {
        _sregs.cr3 = 0x7FFF_F000;
        Assert.Equal(WalkResult.Unsupported, Walk(Page, PageAccess.Read, 2).Head.Result);
    }

    private ((WalkResult Result, uint ErrorCode) Head, ulong Gpa) Walk(ulong linear, PageAccess access, ulong rflags)
    {
        WalkResult result = GuestPageWalker.Walk(_guest.Memory, in _sregs, rflags, linear, access, out ulong gpa, out uint errorCode);
        return ((result, errorCode), gpa);
    }
}
