using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>Folders are removed with all that is in them, and with nothing else.</summary>
public sealed class HostFolderTests : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("microvm-folder-").FullName;

    [Fact]
    public void All_that_is_in_a_folder_goes_and_what_its_links_name_stays()
    {
        string folder = Path.Combine(_scratch, "folder"), kept = Directory.CreateDirectory(Path.Combine(_scratch, "kept")).FullName;
        File.WriteAllText(Path.Combine(kept, "file"), "kept");
        string deep = Directory.CreateDirectory(Path.Combine(folder, "a", "b", "\u00e4 c")).FullName;

        // More than one reading of the folder holds.
        for (int i = 0; i < 500; i++)
        {
            File.WriteAllText(Path.Combine(deep, $"a file whose name takes room {i}"), "");
        }

        File.CreateSymbolicLink(Path.Combine(folder, "to a folder"), kept);
        File.CreateSymbolicLink(Path.Combine(deep, "to a file"), Path.Combine(kept, "file"));
        HostFolder.Remove(folder);
        Assert.Equal(["kept"], Directory.GetFileSystemEntries(_scratch).Select(Path.GetFileName));
        Assert.Equal("kept", File.ReadAllText(Path.Combine(kept, "file")));
    }

    [Fact]
    public void A_folder_that_is_not_there_is_no_error() => HostFolder.Remove(Path.Combine(_scratch, "none"));

    [Fact]
    public void What_is_no_folder_is_left_and_named()
    {
        string file = Path.Combine(_scratch, "file"), link = Path.Combine(_scratch, "link");
        File.WriteAllText(file, "");
        File.CreateSymbolicLink(link, _scratch);
        Assert.Contains(file, Assert.Throws<LinuxException>(() => HostFolder.Remove(file)).Message, StringComparison.Ordinal);
        Assert.Throws<LinuxException>(() => HostFolder.Remove(link));
        Assert.True(File.Exists(file) && Directory.Exists(link) && Directory.Exists(_scratch));
    }

    public void Dispose() => Directory.Delete(_scratch, recursive: true);
}
