using System.Text;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>MAP_SHARED on a folder that two containers and the host have: a file is one file, byte for byte, however it is looked at.</summary>
public sealed class SharedMappingTests : IClassFixture<SharedMappingTests.Pair>
{
    private const int Page = 4096;
    private readonly Pair _pair;

    public SharedMappingTests(Pair pair)
    {
        Installation.RequireRuntime();
        _pair = pair;
        _pair.Start();
    }

    private GuestShell A => _pair.A!;

    private GuestShell B => _pair.B!;

    [SkippableFact]
    public void EachSeesTheOthersBytesOfOnePage()
    {
        string file = Make("one", Page);
        A.Run("map-probe put /vol/one 10 fromA");
        Assert.Equal("fromA\n", B.Run("map-probe get /vol/one 10 5"));
        Assert.Equal("fromA\n", OnHost("get", file, "10", "5"));
        OnHost("put", file, "20", "host");
        B.Run("map-probe put /vol/one 30 fromB");
        Assert.Equal("fromA.....host......fromB\n", A.Run("map-probe get /vol/one 10 25"));
        Assert.Equal("fromA", A.Run("dd if=/vol/one bs=1 skip=10 count=5 2>/dev/null"));
    }

    [SkippableFact]
    public void TwoContainersTakeTurnsInOnePageWithoutACall()
    {
        Make("turns", Page);
        B.Run("map-probe turns /vol/turns 2 1 50 >/tmp/turns &");
        Assert.Equal("took turns\n", A.Run("map-probe turns /vol/turns 1 2 50"));
        Assert.Equal("took turns\n", B.Run("until [ -s /tmp/turns ]; do sleep 0.05; done; cat /tmp/turns"));
    }

    [SkippableFact]
    public void NoneOfManyWritersOfOnePageLosesAByte()
    {
        const int Rounds = 20;
        string file = Make("stripes", 2 * Page);
        A.Run($"rm -f /tmp/s; map-probe stripes /vol/stripes 0 3 {Rounds} >/tmp/s &");
        B.Run($"rm -f /tmp/s; map-probe stripes /vol/stripes 1 3 {Rounds} >/tmp/s &");
        Assert.Equal("added\n", OnHost("stripes", file, "2", "3", $"{Rounds}"));
        foreach (GuestShell shell in (GuestShell[])[A, B])
        {
            Assert.Equal("added\n", shell.Run("until [ -s /tmp/s ]; do sleep 0.05; done; cat /tmp/s"));
        }

        Assert.All(File.ReadAllBytes(file), b => Assert.Equal(Rounds, b));
    }

    /// <summary>As SQLite does it in WAL mode: several locks, of which none covers the whole mapped index.</summary>
    [SkippableFact]
    public void FourWritersOfALogWithAMappedIndexLoseNoRow()
    {
        const int Rows = 30;
        string log = Make("log", 0);
        Make("index", Page);
        foreach ((GuestShell shell, string name) in ((GuestShell, string)[])[(A, "a"), (B, "b")])
        {
            shell.Run($"rm -f /tmp/r?; for i in 1 2; do map-probe rows /vol/log /vol/index {name}$i {Rows} >/tmp/r$i & done");
        }

        foreach (GuestShell shell in (GuestShell[])[A, B])
        {
            Assert.Equal("written\nwritten\n", shell.Run("until [ -s /tmp/r1 ] && [ -s /tmp/r2 ]; do sleep 0.1; done; cat /tmp/r1 /tmp/r2"));
        }

        string[] rows = File.ReadAllLines(log);
        Assert.Equal(4 * Rows, rows.Length);
        Assert.Equal(4 * Rows, rows.Distinct().Count());
    }

    [SkippableTheory]
    [InlineData("/vol/views")]
    [InlineData("/root/views")]
    public void ReadWriteAndMappingsOfOneContainerAgree(string path) =>
        Assert.Equal("0123 abcd 0123P abcdWXYZ89 456\n", A.Run($"map-probe views {path}; map-probe views {path} >/dev/null; map-probe get {path} 0 0 >/dev/null"));

    /// <summary>The host takes pages away that are mapped, and gives others.</summary>
    [SkippableFact]
    public void AFileThatIsCutOnTheHostHarmsNobodyAndIsSeenWhenItGrows()
    {
        Installation.RequireKvm();
        string file = Path.Combine(_pair.Folder, "lost");
        File.WriteAllText(file, string.Concat("abcd".Select(c => new string(c, Page))));
        A.Serve("map-probe lost /vol/lost", "mapped");
        Cut(file, Page);
        File.WriteAllText(file + ".cut", "");
        A.Run("until grep -q changed /tmp/log*; do sleep 0.05; done");
        Assert.Contains("kept a, lost 0 and changed", A.Run("cat /tmp/log*"));
        Assert.Equal(Page, new FileInfo(file).Length);
        using (FileStream stream = File.OpenWrite(file))
        {
            stream.Position = Page;
            stream.Write(Encoding.ASCII.GetBytes(string.Concat("BCD".Select(c => new string(c, Page)))));
        }

        File.WriteAllText(file + ".grown", "");
        A.Run("until grep -q grown.to /tmp/log*; do sleep 0.05; done");
        Assert.Contains("grown to 16384, AC", A.Run("cat /tmp/log*"));
        Assert.Equal("A\n", OnHost("get", file, "0", "1"));
    }

    [SkippableFact]
    public void AFileThatTheOtherContainerCutsHarmsNobody()
    {
        Installation.RequireKvm();
        Make("cut", 4 * Page);
        A.Run("map-probe lost /vol/cut >/tmp/cut & until grep -q mapped /tmp/cut; do sleep 0.05; done");
        B.Run(": >/vol/cut; : >/vol/cut.cut");
        Assert.Contains("lost 0 and changed", A.Run("until grep -q changed /tmp/cut; do sleep 0.05; done; cat /tmp/cut"));
        Assert.Equal(0, new FileInfo(Path.Combine(_pair.Folder, "cut")).Length);
        B.Run("dd if=/dev/zero of=/vol/cut bs=4096 count=4 2>/dev/null; map-probe put /vol/cut 8192 C; : >/vol/cut.grown");
        Assert.Contains("grown to 16384, \0C", A.Run("until grep -q grown.to /tmp/cut; do sleep 0.05; done; cat /tmp/cut"));
    }

    /// <summary>No vCPU is left behind in a page fault, whatever becomes of the files.</summary>
    [SkippableFact]
    public async Task FilesThatTheHostCutsPunchesAndReplacesWhileTwoContainersWriteHarmNobody()
    {
        Installation.RequireKvm();
        const int Files = 4, Length = 600 * Page;
        string folder = Directory.CreateDirectory(Path.Combine(_pair.Folder, "churn")).FullName;
        for (int i = 0; i < Files; i++)
        {
            Make($"churn/{i}", Length);
        }

        using CancellationTokenSource end = new();
        Task host = Task.Run(() => Churn(folder, Files, Length, end.Token));
        B.Run($"rm -f /tmp/churn; map-probe churn /vol/churn {Files} 12 >/tmp/churn &");
        Assert.Equal("churned, 0 wrong\n", A.Run($"map-probe churn /vol/churn {Files} 12"));
        Assert.Equal("churned, 0 wrong\n", B.Run("until [ -s /tmp/churn ]; do sleep 0.1; done; cat /tmp/churn"));
        await end.CancelAsync();
        await host;
    }

    [SkippableFact]
    public void FilesLargerThanTheWindowAndManyFilesAtOnceAreMapped()
    {
        const int Pieces = 100;
        string file = Make("large", Pieces * (2L << 20));
        Assert.Equal($"{Pieces} pieces\n", A.Run("map-probe large /vol/large"));
        using (FileStream stream = File.OpenRead(file))
        {
            for (int i = 0; i < Pieces; i++)
            {
                stream.Position = (i * (2L << 20)) + 9;
                Assert.Equal(1 + (i % 100), stream.ReadByte());
            }
        }

        const int Files = 150;
        Assert.Equal($"{Files} files\n", A.Run($"mkdir /vol/many; map-probe many /vol/many {Files}"));
        Assert.All(Enumerable.Range(0, Files), i => Assert.Equal((byte)'m', File.ReadAllBytes(Path.Combine(_pair.Folder, "many", $"{i}"))[i]));
    }

    [SkippableFact]
    public void ProgramsRunFromAVolumeAlsoWhenTheyAreMapped()
    {
        A.Run("cp /bin/map-probe /vol/program; chmod 755 /vol/program");
        Assert.Equal("ELF\n", A.Run("/vol/program get /vol/program 1 3"));
        Assert.Equal("ELF\n", B.Run("/vol/program get /vol/program 1 3; /vol/program get /vol/program 1 3 >/dev/null"));
    }

    [SkippableFact]
    public void AReadOnlyVolumeIsMappedForReading()
    {
        string file = Make("readonly", Page);
        OnHost("put", file, "0", "seen");
        Assert.Equal("seen\n", A.Run("map-probe get /ro/readonly 0 4"));
        OnHost("put", file, "0", "SEEN");
        Assert.Equal("SEEN\n", A.Run("map-probe get /ro/readonly 0 4"));
        Assert.Equal((1, "open: EROFS\n"), A.Try("map-probe put /ro/readonly 0 no"));
    }

    [SkippableFact]
    public void BuffersOfSystemCallsMayLieInAMapping()
    {
        Make("buffers", 2 * Page);
        Assert.Equal("be\n", A.Run("map-probe buffers /vol/buffers /vol/plain"));
        Assert.Equal("be\n", A.Run("map-probe buffers /vol/buffers /root/plain"));
    }

    private static void Churn(string folder, int files, int length, CancellationToken end)
    {
        Random random = new(1);
        byte[] content = new byte[length];
        Array.Fill(content, (byte)'h');
        while (!end.IsCancellationRequested)
        {
            string file = Path.Combine(folder, $"{random.Next(files)}");
            switch (random.Next(4))
            {
                case 0:
                    Cut(file, random.Next(length));
                    break;
                case 1:
                    _ = Shell.Run("fallocate", "-p", "-o", $"{random.Next(length)}", "-l", $"{length / 4}", file);
                    break;
                case 2:
                    File.WriteAllBytes(file + ".new", content);
                    File.Move(file + ".new", file, overwrite: true);
                    break;
                default:
                    File.WriteAllBytes(file, content);
                    break;
            }

            _ = end.WaitHandle.WaitOne(20);
        }
    }

    private static string OnHost(params string[] arguments) => Shell.Run(Installation.GuestProgram("map-probe"), arguments).EnsureSuccess().StandardOutput;

    private static void Cut(string file, long length)
    {
        using FileStream stream = File.OpenWrite(file);
        stream.SetLength(length);
    }

    private string Make(string name, long length)
    {
        string file = Path.Combine(_pair.Folder, name);
        File.WriteAllBytes(file, []);
        Cut(file, length);
        return file;
    }

    public sealed class Pair() : GuestPair("map-probe", readOnlyToo: true);
}
