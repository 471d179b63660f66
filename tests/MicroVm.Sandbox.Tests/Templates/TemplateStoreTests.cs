using MicroVm.Sandbox.Templates;

namespace MicroVm.Sandbox.Tests.Templates;

/// <summary>Where templates are made, and from where VMs start.</summary>
public sealed class TemplateStoreTests
{
    private const UnixFileMode Own = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    [Theory]
    [InlineData(UnixFileMode.OtherWrite)]
    [InlineData(UnixFileMode.GroupWrite)]
    [InlineData(UnixFileMode.OtherWrite | UnixFileMode.StickyBit)]
    public void NothingIsMadeWhereOthersMayRename(UnixFileMode others)
    {
        using TempFolder folder = new();
        TemplateStore store = new(folder.Path);
        File.SetUnixFileMode(folder.Path, Own);
        Assert.True(Directory.Exists(store.MakeNewFolder()));
        File.SetUnixFileMode(folder.Path, Own | others);
        Assert.Contains($"{folder.Path} is not used", Assert.Throws<SandboxException>(() => store.MakeNewFolder()).Message, StringComparison.Ordinal);
        Assert.Single(Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void AMissingFolderIsMadeForTheRuntimesUserAlone()
    {
        using TempFolder folder = new();
        string path = Path.Combine(folder.Path, "new", "templates");
        string made = new TemplateStore(path).MakeNewFolder();
        Assert.Equal((Own, Own), (File.GetUnixFileMode(path), File.GetUnixFileMode(made)));
    }
}
