using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>The entries of a folder, all or as many as are asked for.</summary>
public sealed unsafe class FolderEntriesTests : IDisposable
{
    private const int Count = 1000; // more than one getdents64(2) gives
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-entries-").FullName;

    public FolderEntriesTests()
    {
        for (int i = 0; i < Count; i++)
        {
            File.WriteAllText(Path.Combine(_folder, $"an entry whose name takes room {i}"), "");
        }
    }

    [Theory]
    [InlineData(int.MaxValue, Count)]
    [InlineData(Count + 1, Count)]
    [InlineData(600, 600)]
    [InlineData(1, 1)]
    [InlineData(0, 0)]
    public void No_more_entries_are_handed_over_than_are_asked_for(int most, int expected)
    {
        using SafeFd folder = SafeFd.From(Libc.open(_folder, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", _folder);
        HashSet<string> names = [];
        FolderEntries.Read(folder, name => Assert.True(names.Add(Marshal.PtrToStringUTF8((nint)name)!)), _folder, most);
        Assert.Equal(expected, names.Count);
        Assert.All(names, n => Assert.True(File.Exists(Path.Combine(_folder, n)), n));
    }

    [Fact]
    public void A_folder_that_has_been_removed_has_no_entries()
    {
        string path = Directory.CreateTempSubdirectory("microvm-entries-").FullName;
        using SafeFd folder = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", path);
        Directory.Delete(path);
        FolderEntries.Read(folder, _ => Assert.Fail("an entry"), path);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
