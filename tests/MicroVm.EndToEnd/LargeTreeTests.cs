using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A tree of more files than a process may have descriptors is walked, and the container goes on.</summary>
public sealed class LargeTreeTests
{
    private const int Folders = 24;

    // More than the hard limit of descriptors where one is set, and than the VMM keeps of idle ones.
    private static readonly int Files = int.TryParse(Environment.GetEnvironmentVariable("MICROVM_LARGE_TREE"), CultureInfo.InvariantCulture, out int n)
        ? n / Folders * Folders
        : 1000 * Folders;

    [SkippableFact]
    public void EveryFileIsFoundWithABoundedNumberOfDescriptors()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("find /vol -type f -size -1 | wc -l; ls / >/dev/null; echo walked; read line; cat /vol/d0/file-1* /vol/d23/file-999 | wc -c");
        string volume = Path.Combine(bundle.Path, "vol");
        for (int folder = 0; folder < Folders; folder++)
        {
            string path = Directory.CreateDirectory(Path.Combine(volume, $"d{folder}")).FullName;
            for (int i = 0; i < Files / Folders; i++)
            {
                File.WriteAllText(Path.Combine(path, $"file-{i}"), "");
            }
        }

        bundle.AddMount("/vol", volume, "bind", "rbind");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("walked\n");
        Assert.StartsWith($"{Files}\n", container.OutputSoFar, StringComparison.Ordinal);
        foreach (int vmm in container.VmmPids())
        {
            Assert.InRange(Directory.GetFileSystemEntries($"/proc/{vmm}/fd").Length, 0, 9_000);
        }

        container.Input.Write("\n"u8);
        container.Input.Flush();
        CommandResult result = container.Wait();
        Assert.Equal((0, $"{Files}\nwalked\n0\n"), (result.ExitCode, result.StandardOutput));
    }
}
