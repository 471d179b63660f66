namespace MicroVm.EndToEnd.Support;

/// <summary>Two containers with one folder of the host at /vol, started by the first test that needs them.</summary>
/// <param name="program">A guest program that both have.</param>
/// <param name="readOnlyToo">The folder is at /ro, too, read-only.</param>
public abstract class GuestPair(string program, bool readOnlyToo = false) : IDisposable
{
    public string Folder { get; } = Directory.CreateTempSubdirectory("microvm-pair-").FullName;

    internal GuestShell? A { get; private set; }

    internal GuestShell? B { get; private set; }

    public void Start()
    {
        A ??= GuestShell.Start(Configure);
        B ??= GuestShell.Start(Configure);
    }

    public void Dispose()
    {
        foreach (GuestShell? shell in (GuestShell?[])[A, B])
        {
            shell?.End();
            shell?.Dispose();
        }

        Directory.Delete(Folder, recursive: true);
        GC.SuppressFinalize(this);
    }

    private void Configure(Bundle bundle)
    {
        bundle.AddGuestProgram(program);
        bundle.AddMount("/vol", Folder, "bind", "rbind", "rw");
        if (readOnlyToo)
        {
            bundle.AddMount("/ro", Folder, "bind", "rbind", "ro");
        }
    }
}
