using System.Runtime.InteropServices;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Virtio;
using MicroVm.Vmm.Devices.Balloon;
using MicroVm.Vmm.Devices.Block;
using MicroVm.Vmm.Devices.Console;
using MicroVm.Vmm.Devices.Mem;
using MicroVm.Vmm.Devices.Net;
using MicroVm.Vmm.Devices.Pmem;
using MicroVm.Vmm.Devices.Vsock;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>The devices' numbers and structs against the kernel's virtio headers.</summary>
public sealed class VirtioAbiTests
{
    private const string Headers = """
        #include <stdint.h>
        #include <linux/virtio_ring.h>
        #include <linux/virtio_ids.h>
        #include <linux/virtio_balloon.h>
        #include <linux/virtio_blk.h>
        #include <linux/virtio_console.h>
        #include <linux/virtio_mem.h>
        #include <linux/virtio_vsock.h>
        #include <linux/virtio_pmem.h>
        #include <linux/virtio_net.h>
        """;

    [SkippableFact]
    public void Numbers_and_structs_equal_the_headers()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        using BalloonDevice balloon = new();
        Dictionary<string, long> ours = new()
        {
            ["VRING_DESC_F_NEXT"] = Descriptor.FlagNext,
            ["VRING_DESC_F_WRITE"] = Descriptor.FlagWrite,
            ["VRING_DESC_F_INDIRECT"] = Descriptor.FlagIndirect,
            ["sizeof(struct vring_desc)"] = Descriptor.Size,

            ["VIRTIO_PMEM_REQ_TYPE_FLUSH"] = PmemRequest.Flush,
            ["sizeof(struct virtio_pmem_req)"] = PmemRequest.Size,
            ["sizeof(struct virtio_pmem_resp)"] = PmemRequest.Size,

            ["VIRTIO_ID_BALLOON"] = balloon.DeviceId,
            ["1ul << VIRTIO_BALLOON_F_REPORTING"] = (long)BalloonFeature.Reporting,
            ["1 << VIRTIO_BALLOON_PFN_SHIFT"] = GuestMemory.PageSize,
            ["sizeof(struct virtio_balloon_config)"] = BalloonConfigSpace.Size,
            ["sizeof(struct virtio_balloon_config) + 0"] = Marshal.SizeOf<BalloonConfigSpace>(),
            ["__builtin_offsetof(struct virtio_balloon_config, actual)"] = BalloonConfigSpace.ActualOffset,
            ["__builtin_offsetof(struct virtio_balloon_config, poison_val)"] = Offset<BalloonConfigSpace>(nameof(BalloonConfigSpace.PoisonValue)),

            ["VIRTIO_MEM_REQ_PLUG"] = (long)MemRequestType.Plug,
            ["VIRTIO_MEM_REQ_UNPLUG"] = (long)MemRequestType.Unplug,
            ["VIRTIO_MEM_REQ_UNPLUG_ALL"] = (long)MemRequestType.UnplugAll,
            ["VIRTIO_MEM_REQ_STATE"] = (long)MemRequestType.State,
            ["VIRTIO_MEM_RESP_ACK"] = (long)MemResponseType.Ack,
            ["VIRTIO_MEM_RESP_NACK"] = (long)MemResponseType.Nack,
            ["VIRTIO_MEM_RESP_BUSY"] = (long)MemResponseType.Busy,
            ["VIRTIO_MEM_RESP_ERROR"] = (long)MemResponseType.Error,
            ["VIRTIO_MEM_STATE_PLUGGED"] = (long)MemState.Plugged,
            ["VIRTIO_MEM_STATE_UNPLUGGED"] = (long)MemState.Unplugged,
            ["VIRTIO_MEM_STATE_MIXED"] = (long)MemState.Mixed,
            ["sizeof(struct virtio_mem_req)"] = MemRequest.Size,
            ["sizeof(struct virtio_mem_req) + 0"] = Marshal.SizeOf<MemRequest>(),
            ["__builtin_offsetof(struct virtio_mem_req, u.plug.addr)"] = Offset<MemRequest>(nameof(MemRequest.Address)),
            ["__builtin_offsetof(struct virtio_mem_req, u.unplug.nb_blocks)"] = Offset<MemRequest>(nameof(MemRequest.Blocks)),
            ["sizeof(struct virtio_mem_resp)"] = MemResponse.Size,
            ["sizeof(struct virtio_mem_resp) + 0"] = Marshal.SizeOf<MemResponse>(),
            ["__builtin_offsetof(struct virtio_mem_resp, u.state.state)"] = Offset<MemResponse>(nameof(MemResponse.State)),
            ["sizeof(struct virtio_mem_config)"] = MemConfigSpace.Size,
            ["sizeof(struct virtio_mem_config) + 0"] = Marshal.SizeOf<MemConfigSpace>(),
            ["__builtin_offsetof(struct virtio_mem_config, node_id)"] = Offset<MemConfigSpace>(nameof(MemConfigSpace.NodeId)),
            ["__builtin_offsetof(struct virtio_mem_config, addr)"] = Offset<MemConfigSpace>(nameof(MemConfigSpace.Address)),
            ["__builtin_offsetof(struct virtio_mem_config, usable_region_size)"] = Offset<MemConfigSpace>(nameof(MemConfigSpace.UsableRegionSize)),
            ["__builtin_offsetof(struct virtio_mem_config, requested_size)"] = Offset<MemConfigSpace>(nameof(MemConfigSpace.RequestedSize)),

            ["VIRTIO_BLK_T_IN"] = (long)BlockRequestType.In,
            ["VIRTIO_BLK_T_OUT"] = (long)BlockRequestType.Out,
            ["VIRTIO_BLK_T_FLUSH"] = (long)BlockRequestType.Flush,
            ["VIRTIO_BLK_T_GET_ID"] = (long)BlockRequestType.GetId,
            ["VIRTIO_BLK_T_DISCARD"] = (long)BlockRequestType.Discard,
            ["VIRTIO_BLK_T_WRITE_ZEROES"] = (long)BlockRequestType.WriteZeroes,
            ["VIRTIO_BLK_S_OK"] = (long)BlockStatus.Ok,
            ["VIRTIO_BLK_S_IOERR"] = (long)BlockStatus.IoError,
            ["VIRTIO_BLK_S_UNSUPP"] = (long)BlockStatus.Unsupported,
            ["1ul << VIRTIO_BLK_F_SEG_MAX"] = (long)BlockFeature.SegMax,
            ["1ul << VIRTIO_BLK_F_RO"] = (long)BlockFeature.ReadOnly,
            ["1ul << VIRTIO_BLK_F_BLK_SIZE"] = (long)BlockFeature.BlockSize,
            ["1ul << VIRTIO_BLK_F_FLUSH"] = (long)BlockFeature.Flush,
            ["1ul << VIRTIO_BLK_F_DISCARD"] = (long)BlockFeature.Discard,
            ["1ul << VIRTIO_BLK_F_WRITE_ZEROES"] = (long)BlockFeature.WriteZeroes,
            ["VIRTIO_BLK_ID_BYTES"] = BlockDevice.MaxIdBytes,
            ["VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP"] = BlockRange.Unmap,
            ["sizeof(struct virtio_blk_discard_write_zeroes)"] = Marshal.SizeOf<BlockRange>(),
            ["sizeof(struct virtio_blk_outhdr)"] = Marshal.SizeOf<BlockRequestHeader>(),
            ["__builtin_offsetof(struct virtio_blk_outhdr, sector)"] = Offset<BlockRequestHeader>(nameof(BlockRequestHeader.Sector)),
            ["__builtin_offsetof(struct virtio_blk_config, seg_max)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.SegMax)),
            ["__builtin_offsetof(struct virtio_blk_config, blk_size)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.BlockSize)),
            ["__builtin_offsetof(struct virtio_blk_config, wce)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.Writeback)),
            ["__builtin_offsetof(struct virtio_blk_config, num_queues)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.NumQueues)),
            ["__builtin_offsetof(struct virtio_blk_config, max_discard_sectors)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.MaxDiscardSectors)),
            ["__builtin_offsetof(struct virtio_blk_config, max_write_zeroes_seg)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.MaxWriteZeroesSeg)),
            ["__builtin_offsetof(struct virtio_blk_config, write_zeroes_may_unmap)"] = Offset<BlockConfigSpace>(nameof(BlockConfigSpace.WriteZeroesMayUnmap)),

            ["1ul << VIRTIO_CONSOLE_F_SIZE"] = (long)ConsoleFeature.Size,
            ["1ul << VIRTIO_CONSOLE_F_EMERG_WRITE"] = (long)ConsoleFeature.EmergencyWrite,
            ["sizeof(struct virtio_console_config)"] = Marshal.SizeOf<ConsoleConfigSpace>(),
            ["__builtin_offsetof(struct virtio_console_config, cols)"] = Offset<ConsoleConfigSpace>(nameof(ConsoleConfigSpace.Columns)),
            ["__builtin_offsetof(struct virtio_console_config, rows)"] = Offset<ConsoleConfigSpace>(nameof(ConsoleConfigSpace.Rows)),
            ["__builtin_offsetof(struct virtio_console_config, emerg_wr)"] = ConsoleConfigSpace.EmergencyWriteOffset,

            ["sizeof(struct virtio_vsock_hdr)"] = Marshal.SizeOf<VsockHeader>(),
            ["__builtin_offsetof(struct virtio_vsock_hdr, dst_cid)"] = Offset<VsockHeader>(nameof(VsockHeader.DestinationCid)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, src_port)"] = Offset<VsockHeader>(nameof(VsockHeader.SourcePort)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, len)"] = Offset<VsockHeader>(nameof(VsockHeader.Length)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, type)"] = Offset<VsockHeader>(nameof(VsockHeader.Type)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, op)"] = Offset<VsockHeader>(nameof(VsockHeader.Operation)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, flags)"] = Offset<VsockHeader>(nameof(VsockHeader.Flags)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, buf_alloc)"] = Offset<VsockHeader>(nameof(VsockHeader.BufferAllocation)),
            ["__builtin_offsetof(struct virtio_vsock_hdr, fwd_cnt)"] = Offset<VsockHeader>(nameof(VsockHeader.ForwardCount)),
            ["VIRTIO_VSOCK_TYPE_STREAM"] = VsockLimits.TypeStream,
            ["VIRTIO_VSOCK_OP_REQUEST"] = (long)VsockOperation.Request,
            ["VIRTIO_VSOCK_OP_RESPONSE"] = (long)VsockOperation.Response,
            ["VIRTIO_VSOCK_OP_RST"] = (long)VsockOperation.Reset,
            ["VIRTIO_VSOCK_OP_SHUTDOWN"] = (long)VsockOperation.Shutdown,
            ["VIRTIO_VSOCK_OP_RW"] = (long)VsockOperation.Data,
            ["VIRTIO_VSOCK_OP_CREDIT_UPDATE"] = (long)VsockOperation.CreditUpdate,
            ["VIRTIO_VSOCK_OP_CREDIT_REQUEST"] = (long)VsockOperation.CreditRequest,
            ["VIRTIO_VSOCK_SHUTDOWN_RCV"] = (long)VsockShutdown.Receive,
            ["VIRTIO_VSOCK_SHUTDOWN_SEND"] = (long)VsockShutdown.Send,
            ["VIRTIO_VSOCK_EVENT_TRANSPORT_RESET"] = 0,

            ["1ul << VIRTIO_NET_F_CSUM"] = (long)NetFeature.Csum,
            ["1ul << VIRTIO_NET_F_GUEST_CSUM"] = (long)NetFeature.GuestCsum,
            ["1ul << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS"] = (long)NetFeature.CtrlGuestOffloads,
            ["1ul << VIRTIO_NET_F_MTU"] = (long)NetFeature.Mtu,
            ["1ul << VIRTIO_NET_F_MAC"] = (long)NetFeature.Mac,
            ["1ul << VIRTIO_NET_F_GUEST_TSO4"] = (long)NetFeature.GuestTso4,
            ["1ul << VIRTIO_NET_F_GUEST_TSO6"] = (long)NetFeature.GuestTso6,
            ["1ul << VIRTIO_NET_F_GUEST_ECN"] = (long)NetFeature.GuestEcn,
            ["1ul << VIRTIO_NET_F_GUEST_UFO"] = (long)NetFeature.GuestUfo,
            ["1ul << VIRTIO_NET_F_HOST_TSO4"] = (long)NetFeature.HostTso4,
            ["1ul << VIRTIO_NET_F_HOST_TSO6"] = (long)NetFeature.HostTso6,
            ["1ul << VIRTIO_NET_F_HOST_ECN"] = (long)NetFeature.HostEcn,
            ["1ul << VIRTIO_NET_F_HOST_UFO"] = (long)NetFeature.HostUfo,
            ["1ul << VIRTIO_NET_F_MRG_RXBUF"] = (long)NetFeature.MrgRxbuf,
            ["1ul << VIRTIO_NET_F_STATUS"] = (long)NetFeature.Status,
            ["1ul << VIRTIO_NET_F_CTRL_VQ"] = (long)NetFeature.CtrlVq,
            ["1ul << VIRTIO_NET_F_CTRL_RX"] = (long)NetFeature.CtrlRx,
            ["1ul << VIRTIO_NET_F_CTRL_VLAN"] = (long)NetFeature.CtrlVlan,
            ["1ul << VIRTIO_NET_F_CTRL_RX_EXTRA"] = (long)NetFeature.CtrlRxExtra,
            ["1ul << VIRTIO_NET_F_MQ"] = (long)NetFeature.Mq,
            ["1ul << VIRTIO_NET_F_CTRL_MAC_ADDR"] = (long)NetFeature.CtrlMacAddr,
            ["VIRTIO_NET_HDR_GSO_NONE"] = (long)NetGso.None,
            ["VIRTIO_NET_HDR_GSO_TCPV4"] = (long)NetGso.Tcp4,
            ["VIRTIO_NET_HDR_GSO_UDP"] = (long)NetGso.Udp,
            ["VIRTIO_NET_HDR_GSO_TCPV6"] = (long)NetGso.Tcp6,
            ["VIRTIO_NET_HDR_GSO_ECN"] = (long)NetGso.Ecn,
            ["VIRTIO_NET_HDR_F_NEEDS_CSUM"] = NetHeader.NeedsCsum,
            ["VIRTIO_NET_S_LINK_UP"] = NetConfigSpace.LinkUp,
            ["sizeof(struct virtio_net_hdr_v1)"] = NetHeader.Size,
            ["sizeof(struct virtio_net_hdr_v1) + 0"] = Marshal.SizeOf<NetHeader>(),
            ["__builtin_offsetof(struct virtio_net_hdr_v1, hdr_len)"] = Offset<NetHeader>(nameof(NetHeader.HeaderLength)),
            ["__builtin_offsetof(struct virtio_net_hdr_v1, gso_size)"] = Offset<NetHeader>(nameof(NetHeader.GsoSize)),
            ["__builtin_offsetof(struct virtio_net_hdr_v1, csum_start)"] = Offset<NetHeader>(nameof(NetHeader.CsumStart)),
            ["__builtin_offsetof(struct virtio_net_hdr_v1, csum_offset)"] = Offset<NetHeader>(nameof(NetHeader.CsumOffset)),
            ["__builtin_offsetof(struct virtio_net_hdr_v1, num_buffers)"] = NetHeader.NumBuffersOffset,
            ["__builtin_offsetof(struct virtio_net_config, status)"] = Offset<NetConfigSpace>(nameof(NetConfigSpace.Status)),
            ["__builtin_offsetof(struct virtio_net_config, max_virtqueue_pairs)"] = Offset<NetConfigSpace>(nameof(NetConfigSpace.MaxQueuePairs)),
            ["__builtin_offsetof(struct virtio_net_config, mtu)"] = Offset<NetConfigSpace>(nameof(NetConfigSpace.Mtu)),
            ["__builtin_offsetof(struct virtio_net_config, speed)"] = NetConfigSpace.Size,
        };
        IReadOnlyDictionary<string, long> theirs = AbiOracle.Evaluate(Headers, ours.Keys);
        Assert.Equal(ours.OrderBy(p => p.Key), theirs.OrderBy(p => p.Key));
    }

    private static long Offset<T>(string field) => Marshal.OffsetOf<T>(field);
}
