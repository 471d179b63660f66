using System.Globalization;

namespace MicroVm.EndToEnd.Support;

/// <summary>
/// A <see cref="NetworkLab"/> with a container in C and one in D, made by the first test of a class that needs it. A server of
/// <c>net-peer</c> is at <see cref="Port"/> everywhere.
/// </summary>
public sealed class TwoContainers : IDisposable
{
    internal const int Port = 7;
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-network-").FullName;
    private NetworkLab? _lab;
    private GuestShell? _c;
    private GuestShell? _d;
    private NameServer? _names;

    internal NetworkLab Lab => _lab!;

    internal GuestShell C => _c!;

    internal GuestShell D => _d!;

    /// <summary>In L, where the containers' resolv.conf points.</summary>
    internal NameServer Names => _names!;

    /// <summary>Skips the calling test where networks or containers cannot be made; else they are there afterwards.</summary>
    internal void Require()
    {
        Installation.RequireRuntime();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        if (_d is not null)
        {
            return;
        }

        Dispose();
        Directory.CreateDirectory(_folder);
        _lab = NetworkLab.Create();
        _names = new NameServer(_lab.PathOf('L'));
        foreach (char c in "RLF")
        {
            _lab.Start(c, true, Installation.GuestProgram("net-peer"), "serve", $"{Port}");
        }

        _c = Start('C');
        _d = Start('D');
    }

    /// <summary>A line of the client <c>net-peer</c> (<c>net-probe</c>) in a namespace of the host, or in the container of it.</summary>
    internal string On(char where, string line) => where switch
    {
        'C' => C.Run(line),
        'D' => D.Run(line),
        _ => Lab.In(where, Path.Combine(Path.GetDirectoryName(Installation.GuestProgram("net-peer"))!, line)),
    };

    public void Dispose()
    {
        _c?.Dispose();
        _d?.Dispose();
        _names?.Dispose();
        _lab?.Dispose();
        (_lab, _c, _d, _names) = (null, null, null, null);
        if (Directory.Exists(_folder))
        {
            Directory.Delete(_folder, recursive: true);
        }
    }

    private GuestShell Start(char where)
    {
        GuestShell shell = GuestShell.Start(Lab.PathOf(where), bundle =>
        {
            // As engines do it.
            foreach ((string name, string text) in ((string, string)[])[
                ("resolv.conf", "nameserver 10.88.0.2\noptions edns0\n"),
                ("hosts", "127.0.0.1 localhost\n10.66.0.2 far.example far\n"),
                ("hostname", $"container-{where}\n")])
            {
                string file = Path.Combine(_folder, name + where);
                File.WriteAllText(file, text);
                bundle.AddMount($"/etc/{name}", file, "bind", "rbind", "rprivate");
            }
        });
        shell.Serve(string.Create(CultureInfo.InvariantCulture, $"net-peer serve {Port}"), "serving");
        return shell;
    }
}
