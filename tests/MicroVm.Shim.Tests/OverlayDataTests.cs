using MicroVm.Shim.Mounts;

namespace MicroVm.Shim.Tests;

/// <summary>A hundred layers fit into what mount(2) reads.</summary>
public sealed class OverlayDataTests
{
    [Fact]
    public void FewLayersStayAsTheyAre()
    {
        const string data = "index=off,lowerdir=/a/1/fs:/a/2/fs,upperdir=/a/3/fs";
        Assert.Equal(new OverlayData(null, data), OverlayData.Shorten(data));
    }

    [Fact]
    public void ManyLayersBecomeRelativeToTheFolderThatTheyShare()
    {
        const string top = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/";
        string[] layers = [.. Enumerable.Range(1, 100).Select(i => $"{top}{i}/fs")];
        OverlayData shorter = OverlayData.Shorten($"index=off,workdir={top}101/work,upperdir={top}101/fs,lowerdir={string.Join(':', layers)}");
        Assert.Equal(top, shorter.Folder);
        Assert.True(shorter.Text.Length < 4096);
        Assert.Contains(",lowerdir=1/fs:2/fs:", shorter.Text, StringComparison.Ordinal);
        Assert.Contains($"upperdir={top}101/fs", shorter.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void LayersThatShareNoFolderStayAbsolute()
    {
        string data = "lowerdir=" + string.Join(':', Enumerable.Range(0, 2000).Select(i => i % 2 == 0 ? "/a/x" : "/b/x"));
        Assert.Equal(new OverlayData(null, data), OverlayData.Shorten(data));
    }
}
