using System.Text;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>What files of the root and of a volume can do beyond reading and writing; with runc too.</summary>
public sealed class FileSemanticsTests : IDisposable
{
    private const string Access = "system.posix_acl_access";
    private const string Default = "system.posix_acl_default";

    // Tags of an ACL's entries (linux/posix_acl.h), and the id of one that has none.
    private const ushort UserObject = 1, User = 2, GroupObject = 4, Mask = 0x10, Other = 0x20;
    private const uint None = uint.MaxValue;
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-files-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Set-id bits, attributes, flags, ranges, handles: the checks of file-probe, in the root and on a volume.</summary>
    [SkippableFact]
    public void SetIdBitsAttributesFlagsAndRangesAreAsOnTheHost()
    {
        Installation.RequireRuntime();
        Installation.RequireUserAttributes(_folder);
        using Bundle bundle = Bundle.Create("/bin/file-probe", "/home", "/vol");
        Configure(bundle);
        bundle.AddGuestProgram("file-probe");
        foreach (string folder in (string[])[_folder, Path.Combine(bundle.Rootfs, "home")])
        {
            File.SetUnixFileMode(folder, (UnixFileMode)0x1FF);
            Shell.Run("sh", "-c", $"mkdir {folder}/setgid && chown 0:3000 {folder}/setgid && chmod 2777 {folder}/setgid").EnsureSuccess();
        }

        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        string[] lines = result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.DoesNotContain(lines, l => l is not ("good" or "done"));
        Assert.Equal(2, lines.Count(l => l == "done"));
    }

    [SkippableFact]
    public void AnOverlayInsideWorksWithItsLayersInTheRootAndOnAVolume()
    {
        Installation.RequireRuntime();
        Installation.RequireUserAttributes(_folder);
        using Bundle bundle = Bundle.Create(
            """
            for d in /home/o /vol/o; do
              mkdir -p $d/l/dir/sub $d/u $d/w $d/m; echo low >$d/l/f; echo x >$d/l/dir/x; ln -s f $d/l/s
              mount -t overlay overlay -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w $d/m || exit 1
              cd $d/m
              echo more >>f && [ "$(cat f | xargs)" = "low more" ] && [ "$(cat ../l/f)" = low ] && echo copied-up
              mv s t && [ "$(readlink t)" = f ] && chown -h 5 t && echo link
              rm dir/x && [ ! -e dir/x ] && [ -c ../u/dir/x ] && echo whiteout
              rm -rf dir && mkdir dir && [ -z "$(ls dir)" ] && echo opaque
              mkdir new && mv new new2 && ln f g && [ "$(stat -c %h f)" = 2 ] && echo names
              cd /; umount $d/m
              mount -t overlay overlay -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w $d/m && [ -z "$(ls $d/m/dir)" ] && [ -e $d/m/new2 ] && echo again
              umount $d/m
            done
            """);
        Configure(bundle);
        CommandResult result = Container.Run(bundle);
        string once = "copied-up\nlink\nwhiteout\nopaque\nnames\nagain\n";
        Assert.True(result.StandardOutput == once + once, result.ToString());

        // The host's own meaning of the mark is not touched.
        string made = $"{_folder}/o/u/dir";
        Assert.Equal(Installation.IsMicroVm, Attribute(made, "user.microvm.trusted.overlay.opaque") is not null);
        Assert.Equal(!Installation.IsMicroVm, Attribute(made, "trusted.overlay.opaque") is not null);
    }

    [SkippableFact]
    public void TheHostsAclsHoldInsideAndThoseOfTheContainerOnTheHost()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create(
            """
            cat /vol/open; cat /vol/closed 2>/dev/null || echo kept-out
            umask 077; echo n >/vol/def/n && mkdir /vol/def/d && echo made
            """);
        File.SetUnixFileMode(_folder, (UnixFileMode)0x1ED);
        foreach (string name in (string[])["open", "closed"])
        {
            File.WriteAllText($"{_folder}/{name}", name + "\n");
        }

        Shell.Run("sh", "-c", $"cd {_folder} && chown 0:2000 open closed && mkdir -m 777 def host").EnsureSuccess();
        SetAcl("open", Access, (UserObject, 6, None), (User, 4, 1000), (GroupObject, 0, None), (Mask, 4, None), (Other, 0, None));
        SetAcl("closed", Access, (UserObject, 6, None), (User, 4, 1001), (GroupObject, 0, None), (Mask, 4, None), (Other, 0, None));
        foreach (string name in (string[])["def", "host"])
        {
            SetAcl(name, Default, (UserObject, 7, None), (User, 7, 1000), (GroupObject, 4, None), (Mask, 7, None), (Other, 0, None));
        }

        Shell.Run("sh", "-c", $"umask 077; cd {_folder}/host && echo n >n && mkdir d").EnsureSuccess();
        Configure(bundle);
        bundle.Process["user"] = new JsonObject { ["uid"] = 1000, ["gid"] = 2000 };
        bundle.Process["capabilities"] = new JsonObject();
        CommandResult result = Container.Run(bundle);
        Assert.True(result.StandardOutput == "open\nkept-out\nmade\n", result.ToString());
        foreach ((string name, string kind) in ((string, string)[])[("n", Access), ("d", Access), ("d", Default)])
        {
            Assert.NotNull(Attribute($"{_folder}/host/{name}", kind));
            Assert.Equal(Attribute($"{_folder}/host/{name}", kind), Attribute($"{_folder}/def/{name}", kind));
        }
    }

    [SkippableFact]
    public void AnAclThatAContainerSetsIsTheHosts()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("cd /vol && file-probe acl f 1000 && cd /home && file-probe acl f 1000 && stat -c %a f");
        Configure(bundle);
        bundle.AddGuestProgram("file-probe");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.StandardOutput == "set\nset\n664\n", result.ToString());
        File.WriteAllText($"{_folder}/g", "");
        SetAcl("g", Access, (UserObject, 6, None), (User, 6, 1000), (GroupObject, 4, None), (Mask, 6, None), (Other, 4, None));
        Assert.Equal(Attribute($"{_folder}/g", Access), Attribute($"{_folder}/f", Access));
        Assert.Equal(Attribute($"{_folder}/g", Access), Attribute($"{bundle.Rootfs}/home/f", Access));
    }

    /// <summary>Files that say they are empty and are not.</summary>
    [SkippableFact]
    public void FilesOfTheHostsProcHaveTheirContents()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("grep -c ^processor /host/proc/cpuinfo; grep -o 'Linux version' /host/proc/version; wc -l </host/proc/uptime; cat /host/proc/sys/kernel/ostype");
        bundle.AddMount("/host/proc", "/proc", "bind", "rbind", "ro");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.StandardOutput == $"{Environment.ProcessorCount}\nLinux version\n1\nLinux\n", result.ToString());
    }

    private static unsafe byte[]? Attribute(string path, string name)
    {
        byte[] value = new byte[1024];
        fixed (byte* file = Encoding.UTF8.GetBytes(path + "\0"), text = Encoding.UTF8.GetBytes(name + "\0"), room = value)
        {
            nint n = Libc.getxattr(file, text, room, (nuint)value.Length);
            return n < 0 ? null : value[..(int)n];
        }
    }

    private unsafe void SetAcl(string file, string kind, params (ushort Tag, ushort Permissions, uint Id)[] entries)
    {
        // struct posix_acl_xattr_header and its entries.
        byte[] value = [2, 0, 0, 0, .. entries.SelectMany(e => (byte[])[.. BitConverter.GetBytes(e.Tag), .. BitConverter.GetBytes(e.Permissions), .. BitConverter.GetBytes(e.Id)])];
        fixed (byte* path = Encoding.UTF8.GetBytes($"{_folder}/{file}\0"), name = Encoding.UTF8.GetBytes(kind + "\0"), bytes = value)
        {
            int result = Libc.setxattr(path, name, bytes, (nuint)value.Length, 0);
            Skip.If(result != 0 && Check.LastErrno == Errno.EOPNOTSUPP, "the temp directory's file system has no POSIX ACLs");
            Assert.Equal(0, result);
        }
    }

    private void Configure(Bundle bundle)
    {
        bundle.AddMount("/vol", _folder, "bind", "rbind", "rw");
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray(
                "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_MKNOD");
        }
    }
}
